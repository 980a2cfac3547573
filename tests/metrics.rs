//! What `/metrics` says of a hand-made transport.

#[path = "support/programs.rs"]
mod programs;
#[path = "support/scrape.rs"]
mod scrape;
#[path = "support/tier.rs"]
mod tier;

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use prometheus::{Registry, TextEncoder};
use rafthttp::{
    PeerRole, PeerStatus, TransportStatus,
    id::{ClusterId, MemberId},
    metrics::{
        AttemptResult, Channel, Collector, DialPhase, Direction, DropReason, Exemplar, Exposition, Format, Incoming,
        LossReason, MessageKind, Options, Outgoing, ProbeResult, RaftStatus, RejectReason, RestartReason, SnapshotPace,
        TraceExportStatus, raft_collector, trace_collector,
    },
    telemetry::{SpanId, TraceContext, TraceId},
    tls::{CertificatePart, TlsStatus},
    wire::{StreamKind, raftpb::MessageType},
};
use scrape::Scrape;
use tier::not_run;

const APP: MessageKind = MessageKind::ALL[MessageType::MsgApp as usize];
const RESPONSE: MessageKind = MessageKind::ALL[MessageType::MsgAppResp as usize];

/// Those of etcd's names that do not say what they are.
const OF_NO_TYPE: [&str; 6] = [
    "etcd_network_snapshot_receive_failures",
    "etcd_network_snapshot_receive_inflights_total",
    "etcd_network_snapshot_receive_success",
    "etcd_network_snapshot_send_failures",
    "etcd_network_snapshot_send_inflights_total",
    "etcd_network_snapshot_send_success",
];

fn peer(id: u64) -> PeerStatus {
    let mut peer = PeerStatus::default();
    peer.id = MemberId(id);
    peer.urls = vec!["http://127.0.0.1:2380".parse().expect("a URL")];
    peer
}

fn exemplar(took: Duration) -> Exemplar {
    let context =
        TraceContext { trace: TraceId(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f), span: SpanId(0x0001_0203_0405_0607) };
    Exemplar::new(context, took, UNIX_EPOCH + Duration::from_millis(1_700_000_000_250))
}

/// A peer to which something of everything has happened.
fn busy_peer() -> PeerStatus {
    let mut peer = peer(0x91bc_3c39_8fb3_c146);
    peer.name = "the \"second\"\\\nmember".to_owned();
    let outgoing = &mut peer.outgoing;
    outgoing.offered[APP] = 10;
    outgoing.sent[Channel::MsgApp][APP] = 6;
    outgoing.dropped.add((APP, Channel::MsgApp, DropReason::QueueFull), 3);
    outgoing.queued[Channel::MsgApp] = 1;
    outgoing.bytes[Channel::MsgApp] = 600;
    outgoing.etcd_bytes = 900;
    outgoing.queue_seconds[Channel::MsgApp].observe_many(Duration::from_micros(150), 6);
    outgoing.unconfirmed[StreamKind::MsgApp] = Some(5);
    outgoing.lost[StreamKind::Message] = 2;
    outgoing.queue_seconds[Channel::MsgApp].exemplify(exemplar(Duration::from_micros(150)));
    outgoing.append_round_trip.observe(Duration::from_millis(1));
    outgoing.append_round_trip.observe(Duration::from_secs(60));
    outgoing.append_round_trip.exemplify(exemplar(Duration::from_secs(60)));
    outgoing.last_frame[StreamKind::MsgApp] = Some(UNIX_EPOCH + Duration::from_millis(1500));
    let incoming = &mut peer.incoming;
    incoming.received[Channel::Message][RESPONSE] = 7;
    incoming.received[Channel::Pipeline][MessageKind::of(4711)] = 1;
    incoming.processed[RESPONSE] = 5;
    incoming.rejected.add((MessageKind::of(4711), RejectReason::Refused), 1);
    incoming.frame_errors.add((Channel::MsgApp, "length"), 1);
    incoming.waiting = 2;
    incoming.bytes[Channel::Message] = 70;
    incoming.etcd_bytes = 80;
    incoming.process_seconds.observe(Duration::from_millis(3));
    incoming.process_seconds.exemplify(exemplar(Duration::from_millis(3)));
    incoming.last_frame[StreamKind::Message] = Some(UNIX_EPOCH + Duration::from_secs(2));
    let link = &mut peer.link;
    link.reachable = Some(true);
    link.probes.add(ProbeResult::Ok, 2);
    link.probe_seconds.observe(Duration::from_micros(180));
    link.probe_seconds.observe(Duration::from_millis(140));
    link.dial_seconds[DialPhase::Connect].observe(Duration::from_micros(90));
    link.clock_offset = Some(-0.25);
    link.stream_up[StreamKind::MsgApp][Direction::Out] = true;
    link.attempts.add((Channel::MsgApp, AttemptResult::Timeout), 4);
    link.losses.add((Channel::Message, Direction::In, LossReason::Eof), 1);
    link.active_since = Some(UNIX_EPOCH);
    link.disconnected = 1;
    link.sent_failures = 3;
    link.received_failures = 2;
    link.snapshots[Direction::Out].ok = 1;
    link.snapshots[Direction::Out].bytes = 1 << 30;
    link.snapshots[Direction::Out].seconds.observe(Duration::from_secs(3));
    link.snapshots[Direction::Out].resumed = 1 << 20;
    link.snapshots[Direction::Out].resent = 1 << 10;
    link.snapshots[Direction::Out].restarts.add(RestartReason::Lost, 1);
    link.snapshots[Direction::In].restarts.add(RestartReason::Another, 2);
    link.snapshots[Direction::In].broken_off = 3;
    link.snapshots[Direction::In].failed = 1;
    link.snapshots[Direction::In].in_flight = 1;
    link.snapshots[Direction::In].promised = 400;
    link.snapshots[Direction::In].passed = 100;
    peer
}

fn status() -> TransportStatus {
    let mut remote = peer(0xfd42_2379_fda5_0e48);
    remote.role = PeerRole::Remote;
    remote.name = "<script>".to_owned();
    let mut status = TransportStatus::default();
    status.local = MemberId(0x8e9e_05c5_2164_694d);
    status.cluster = Some(ClusterId(0xcdf8_1819_4e3a_8c32));
    status.peers = vec![busy_peer(), remote];
    let strangers = status.strangers.insert(Incoming::default());
    strangers.received[Channel::Pipeline][APP] = 50;
    strangers.rejected.add((APP, RejectReason::Refused), 50);
    let others = status.others.insert(Outgoing::default());
    others.offered[APP] = 8;
    others.sent[Channel::Pipeline][APP] = 5;
    others.dropped.add((APP, Channel::Pipeline, DropReason::Promoted), 2);
    others.queued[Channel::Pipeline] = 1;
    status.unroutable.add("unknown_peer", 1);
    let pace = status.pace.insert(SnapshotPace::default());
    pace.limit = Some(20_971_520.0);
    pace.yields = 2;
    let mut tls = TlsStatus::default();
    tls.certificate_expiry = Some(UNIX_EPOCH + Duration::from_secs(2_000_000_000));
    tls.certificate_parts = vec![(CertificatePart::Leaf, UNIX_EPOCH + Duration::from_secs(2_000_000_000))];
    tls.reloads_ok = 1;
    tls.revocation_next_update = Some(UNIX_EPOCH + Duration::from_secs(2_100_000_000));
    tls.connections_closed.add((Direction::Out, "revoked"), 2);
    tls.identity_mismatches.add("stream", 3);
    tls.handshake_failures.add((Direction::In, "certificate"), 1);
    status.tls = Some(tls);
    status
}

fn exposition(status: TransportStatus, options: &Options) -> String {
    Exposition::new(status, options).map(|piece| String::from_utf8(piece.to_vec()).expect("text")).collect()
}

fn text() -> String {
    exposition(status(), &Options::default())
}

fn open_metrics() -> String {
    let pieces = Exposition::new(status(), &Options::default()).format(Format::OpenMetrics);
    let text: String = pieces.map(|piece| String::from_utf8(piece.to_vec()).expect("text")).collect();
    text + Format::OpenMetrics.end()
}

/// After a change that is meant to be seen, look at the difference and replace the file.
#[test]
fn the_text_is_what_it_was() {
    let golden = include_str!("metrics/golden.txt").replace("VERSION", env!("CARGO_PKG_VERSION"));
    let text = text();
    for (line, (found, expected)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, expected, "line {}", line + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn both_formats_have_the_same_samples_in_the_same_order() {
    let samples = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" # ").next().unwrap_or(line).to_owned()).collect()
    };
    assert_eq!(samples(&open_metrics()), samples(&text()));
}

#[test]
fn open_metrics_has_heads_of_its_own_and_exemplars() {
    let text = open_metrics();
    for lines in [
        "\n# TYPE rafthttp_messages_sent counter\n\
         # HELP rafthttp_messages_sent Messages that were given to the connection of a stream, or whose POST succeeded.\n\
         rafthttp_messages_sent_total{",
        "\n# TYPE rafthttp_sent_bytes counter\n# UNIT rafthttp_sent_bytes bytes\n",
        "\n# TYPE rafthttp_queue_seconds histogram\n# UNIT rafthttp_queue_seconds seconds\n",
        "\nrafthttp_queue_seconds_bucket{peer=\"91bc3c398fb3c146\",channel=\"msgapp\",le=\"0.0002\"} 6 # \
         {trace_id=\"000102030405060708090a0b0c0d0e0f\",span_id=\"0001020304050607\"} 0.00015 1700000000.250\n",
        "\nrafthttp_append_round_trip_seconds_bucket{peer=\"91bc3c398fb3c146\",le=\"+Inf\"} 2 # \
         {trace_id=\"000102030405060708090a0b0c0d0e0f\",span_id=\"0001020304050607\"} 60 1700000000.250\n",
    ] {
        assert!(text.contains(lines), "{lines}");
    }
    assert_eq!(text.matches(" # {").count(), 3);
    assert!(text.ends_with("\n# EOF\n"));
    let heads = |text: &str, kind: &str| text.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!(heads(&text, "# TYPE "), heads(&self::text(), "# TYPE "));
    assert_eq!(heads(&text, "# HELP "), heads(&self::text(), "# HELP "));
}

#[test]
fn what_does_not_fit_open_metrics_is_of_an_unknown_type_there() {
    let text = open_metrics();
    let unknown: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" unknown")).collect();
    assert_eq!(unknown, OF_NO_TYPE.into());
}

#[test]
fn a_registry_is_shown_in_open_metrics_as_the_transport_itself_is() {
    let registry = Registry::new();
    registry
        .register(Box::new(Collector::new(|| Some(status()), Options::default())))
        .expect("the families are consistent");
    let gathered = Format::OpenMetrics.encode(&registry.gather()).expect("the families are valid");
    let lines = |text: &str| -> BTreeSet<String> {
        text.lines()
            .map(|line| line.split(" # ").next().filter(|_| !line.starts_with('#')).unwrap_or(line).to_owned())
            .collect()
    };
    assert_eq!(lines(&(gathered + Format::OpenMetrics.end())), lines(&open_metrics()));
}

#[test]
fn a_registry_shows_the_same_samples() {
    let registry = Registry::new();
    registry
        .register(Box::new(Collector::new(|| Some(status()), Options::default())))
        .expect("the families are consistent");
    let gathered = TextEncoder::new().encode_to_string(&registry.gather()).expect("the families are valid");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
    assert_eq!(lines(&gathered), lines(&text()));
}

#[test]
fn the_laws_hold_in_the_text_and_a_broken_one_is_seen() {
    assert_eq!(Scrape::parse(&text()).broken_laws(), Vec::<String>::new());
    let mut status = status();
    status.peers[0].outgoing.offered[APP] += 1;
    assert_eq!(Scrape::parse(&exposition(status, &Options::default())).broken_laws().len(), 1);
}

#[test]
fn what_a_stranger_says_is_no_label() {
    let scrape = Scrape::parse(&text());
    let peers: Vec<&str> = scrape.peers().into_iter().collect();
    assert_eq!(peers, ["91bc3c398fb3c146", "other"], "a remote is who he says that he is");
    let names: Vec<&String> = scrape.samples().iter().filter_map(|sample| sample.labels.get("name")).collect();
    assert_eq!(names, ["the \"second\"\\\nmember"], "a remote's name and URLs are what it says of itself");
    assert_eq!(scrape.sum("rafthttp_messages_received_total", &[("peer", "other")]), Some(50.0));
}

#[test]
fn a_new_peer_has_its_counters_at_zero_and_no_gauge_of_what_was_never_measured() {
    let mut status = TransportStatus::default();
    status.peers = vec![peer(2)];
    let scrape = Scrape::parse(&exposition(status, &Options::default()));
    for name in [
        "rafthttp_probes_total",
        "rafthttp_stream_attempts_total",
        "rafthttp_sent_bytes_total",
        "rafthttp_received_bytes_total",
        "rafthttp_queue_seconds_count",
        "rafthttp_process_seconds_count",
        "rafthttp_messages_lost_total",
        "rafthttp_append_round_trip_seconds_count",
        "rafthttp_probe_duration_seconds_count",
        "rafthttp_probe_dial_seconds_count",
        "rafthttp_snapshots_total",
        "rafthttp_snapshot_resumed_bytes_total",
        "rafthttp_snapshot_resent_bytes_total",
        "rafthttp_snapshot_restarts_total",
        "rafthttp_snapshot_seconds_count",
        "rafthttp_snapshot_bytes_total",
    ] {
        assert_eq!(scrape.sum(name, &[("peer", "2")]), Some(0.0), "{name}");
    }
    for name in [
        "rafthttp_peer_reachable",
        "rafthttp_peer_clock_offset_seconds",
        "rafthttp_stream_last_frame_timestamp_seconds",
        "rafthttp_messages_unconfirmed",
        "rafthttp_snapshot_progress_ratio",
        "rafthttp_messages_offered_total",
        "rafthttp_messages_dropped_total",
        "rafthttp_stream_losses_total",
        "rafthttp_tls_reloads_total",
    ] {
        assert_eq!(scrape.sum(name, &[]), None, "{name}");
    }
}

#[test]
fn etcds_histogram_has_etcds_buckets_and_ours_the_edge_at_150_ms() {
    let scrape = Scrape::parse(&text());
    let bounds = |name: &str| -> Vec<f64> {
        let buckets = scrape.samples().iter().filter(|sample| sample.name == name);
        buckets.map(|sample| sample.labels["le"].parse().expect("a number")).collect()
    };
    let doubling = |start: f64, count| (0..count).map(move |power| start * f64::from(1 << power)).collect::<Vec<_>>();
    let finite = |bounds: Vec<f64>| bounds.into_iter().filter(|bound| bound.is_finite()).collect::<Vec<_>>();
    assert_eq!(finite(bounds("etcd_network_peer_round_trip_time_seconds_bucket")), doubling(0.0001, 16));
    let sends = finite(bounds("etcd_network_snapshot_send_total_duration_seconds_bucket"));
    assert_eq!(sends, doubling(0.1, 10));
    assert!(bounds("rafthttp_probe_duration_seconds_bucket").contains(&0.15));
    let below = |name, le| scrape.sum(name, &[("le", le)]);
    assert_eq!(below("etcd_network_peer_round_trip_time_seconds_bucket", "0.1024"), Some(1.0));
    assert_eq!(below("etcd_network_peer_round_trip_time_seconds_bucket", "0.2048"), Some(2.0));
    assert_eq!(below("rafthttp_probe_duration_seconds_bucket", "0.15"), Some(2.0));
}

#[test]
fn etcds_names_can_be_switched_off() {
    assert_eq!(text().matches("# TYPE etcd_network_").count(), 15);
    assert_eq!(exposition(status(), &Options { etcd: false }).matches("etcd_").count(), 0);
}

#[test]
fn a_node_shows_etcds_seven_raft_series() {
    let registry = Registry::new();
    let raft = RaftStatus { has_leader: true, proposals_applied: 42, leader_changes: 3, ..RaftStatus::default() };
    registry.register(raft_collector(move || raft)).expect("the families are consistent");
    let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("the families are valid");
    let scrape = Scrape::parse(&text);
    assert_eq!(scrape.samples().len(), 7);
    assert_eq!(scrape.sum("etcd_server_has_leader", &[]), Some(1.0));
    assert_eq!(scrape.sum("etcd_server_is_leader", &[]), Some(0.0));
    assert_eq!(scrape.sum("etcd_server_proposals_applied_total", &[]), Some(42.0));
    assert!(text.contains("# TYPE etcd_server_proposals_applied_total gauge"), "as in etcd");
    assert!(text.contains("# TYPE etcd_server_leader_changes_seen_total counter"));
}

/// Prometheus' own reader and linter.
#[test]
fn promtool_finds_fault_with_etcds_six_names_alone() {
    let registry = Registry::new();
    registry.register(trace_collector(TraceExportStatus::default)).expect("the families are consistent");
    let traces = TextEncoder::new().encode_to_string(&registry.gather()).expect("the families are valid");
    let Some(faults) = promtool(&(traces + &text())) else { return };
    let names: BTreeSet<&str> = faults.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, OF_NO_TYPE.into(), "{faults}");
}

/// What `promtool check metrics` says; none where promtool cannot be had.
fn promtool(text: &str) -> Option<String> {
    let paths = programs::program("promtool check metrics", "prometheus", &[])?;
    let promtool = paths.to_str().and_then(|paths| paths.lines().last()).expect("promtool's path is the last line");
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
