"""One look at a whole cluster: who hears whom, what was lost, how long things take."""

from links import EXPLAINED, MATRIX_STATES, STATES, TO_PEER, UP, matrix, state
from panels import (
    BAD, GOOD, IDLE, MEMBER, WARN, Dashboard, appeared, lines, mapping, members, named, names, now, only, quantile, query,
    stat, table, timeline, traced, variable,
)

BUILD = "rafthttp_build_info"


def dashboard():
    """The dashboard `rafthttp-overview`."""
    about = """The raft network of a cluster, as its members measure it: which member hears which, where every message went,
    round trips, streams, snapshots, raft."""
    peer = variable("peer", "Peer", f'query_result(count by (peer, text) (label_join(rafthttp_peer_info{{{MEMBER}}}, "text", " ", "name", "peer")))',
                    regex='/peer="(?<value>[^"]+)".*text="(?<text>[^"]+)"/', about="The other end of the links that are shown.")
    made = Dashboard("rafthttp-overview", "Raft network / Overview", about, [*members(BUILD), peer],
                     tags=["raft-network", "rafthttp"], since=BUILD)
    who_hears_whom(made)
    ledger(made)
    round_trips(made)
    streams(made)
    snapshots(made)
    raft(made)
    process(made)
    return made.json()


def who_hears_whom(made):
    made.row(100, "Who hears whom")
    made.add(
        stat(101, "Members", "Number of members that are scraped, and number of members that any of these knows.", "none",
             [now("count(rafthttp_member_info{[[M]]})", "scraped"),
              now(f"count({names()})", "known")],
             empty="none scraped", text="value_and_name"),
        stat(102, "Links cut", "Pairs of a member and a peer whose last probe failed. A broken link between two members counts twice.",
             "none", [now("sum(1 - rafthttp_peer_reachable{[[P]]})")], empty="nothing probed yet",
             steps=((None, GOOD), (1, BAD))),
        stat(103, "Streams down", "Streams that are not open. Each pair of members has four, and both ends report a lost stream.",
             "none", [now("sum(1 - rafthttp_stream_up{[[P]]})")], empty="no peers", steps=((None, GOOD), (1, WARN))),
        stat(104, "Leader", "The leader. More than one leader for longer than an election means a partition: the one with the lower term cannot commit.",
             "none", [now(_named_member("etcd_server_is_leader{[[M]]} == 1"), "{{name}}")], empty="no leader", text="name",
             steps=((None, IDLE),)),
        stat(105, "Dropped, 5 min", "Messages dropped on the sending side in five minutes, for any reason. Raft repeats important messages. Many drops mean a link that cannot carry raft's load.",
             "short", [now(f"300 * sum({appeared('rafthttp_messages_dropped_total', '[[P]]', '5m')})")], empty="none",
             steps=((None, GOOD), (1, WARN))),
        stat(106, "Lost, 5 min", "Messages lost in five minutes: they were written to a stream that broke before the other end read them. Known only for peers that report what they read: members of rafthttp, not of etcd.",
             "short", [now("sum(increase(rafthttp_messages_lost_total{[[P]]}[5m]))")], empty="not reported by any peer",
             steps=((None, GOOD), (1, WARN))),
    )
    made.add(
        table(108, "Who hears whom", "A row for each member, a column for each peer. " + EXPLAINED + " *?* in a row: that member is not scraped, so its links are unknown. If members share a name, the worst state is shown: choose one cluster.",
              "none", [now(matrix())], empty="?", size=(12, 9), cell="color-background",
              defaults={"mappings": mapping(MATRIX_STATES), "color": {"mode": "thresholds"},
                        "thresholds": {"mode": "absolute", "steps": [{"value": None, "color": "transparent"}]}},
              overrides=[{"matcher": {"id": "byName", "options": "from\\to"},
                          "properties": [{"id": "displayName", "value": "member \\ hears"},
                                         {"id": "custom.cellOptions", "value": {"type": "auto"}}]}],
              transformations=[{"id": "sortBy", "options": {"sort": [{"field": "to"}]}},
                               {"id": "sortBy", "options": {"sort": [{"field": "from"}]}},
                               {"id": "groupingToMatrix", "options": {"columnField": "to", "rowField": "from", "valueField": "Value", "emptyValue": "null"}}]),
        timeline(109, "Links over time", EXPLAINED + " In a gap the member was not scraped.",
                 [query(named(state("[[P]]")), "{{instance}} → {{name}}")], STATES, empty="nothing probed yet", size=(12, 9), links=[TO_PEER]),
    )
    made.add(
        table(110, "Alerts", "The firing and pending alerts of this project's rules, as this Prometheus evaluates them.",
              "none", [now('max by (alertname, severity, alertstate, instance, peer) (ALERTS{alertname=~"Rafthttp.+|Etcd.+|etcd.+"})')],
              empty="no alert", size=(24, 5), transformations=[only("alertname", "severity", "alertstate", "instance", "peer",
                                                                 alertname="alert", alertstate="state", instance="member")], sort=["alert"]),
    )


def _named_member(expression):
    """What a member says of itself, labelled with its name."""
    own = 'label_replace(rafthttp_member_info{[[M]]}, "peer", "$1", "member", "(.*)")'
    return f"({expression}) * on (job, cluster, instance) group_left (name) ({own} * on (job, cluster, peer) group_left (name) {names()})"


def ledger(made):
    made.row(200, "Ledger and loss")
    made.add(
        lines(201, "Messages out", "Messages per second that raft gave to the transport, and that the transport gave to a connection. The rest is dropped or queued.",
              "cps", [query("sum by (instance) (rate(rafthttp_messages_offered_total{[[P]]}[$__rate_interval]))", "{{instance}} offered"),
                      query("sum by (instance) (rate(rafthttp_messages_sent_total{[[P]]}[$__rate_interval]))", "{{instance}} sent")],
              empty="no messages"),
        lines(202, "Messages in", "Messages per second that were decoded from the wire, and that raft processed. The rest is rejected or waits.",
              "cps", [query("sum by (instance) (rate(rafthttp_messages_received_total{[[P]]}[$__rate_interval]))", "{{instance}} received"),
                      query("sum by (instance) (rate(rafthttp_messages_processed_total{[[P]]}[$__rate_interval]))", "{{instance}} processed")],
              empty="no messages"),
        lines(203, "Dropped, by reason", "Messages dropped before they left, by reason: queue_full (the peer is too slow), stream_lost, post_failed, refused (by the peer), too_large, paused, peer_removed, promoted (a remote became a peer), stopped. Answers to senders that are not peers are included, as peer *other*.",
              "cps", [query(f"sum by (instance, reason) ({appeared('rafthttp_messages_dropped_total', '[[P]]')})", "{{instance}} {{reason}}")],
              empty="nothing was dropped", stack=True),
        lines(204, "Rejected, by reason", "Received messages that were rejected, by reason: queue_full (raft is too slow), refused, failed, paused, stopped. Strangers' messages are included, as peer *other*.",
              "cps", [query(f"sum by (instance, reason) ({appeared('rafthttp_messages_rejected_total', '[[M]]')})", "{{instance}} {{reason}}")],
              empty="nothing was rejected", stack=True),
        lines(205, "Queued to send", "Messages that are neither sent nor dropped yet, by peer. The bound is 4096 on each channel.",
              "short", [query(named("sum by (job, cluster, instance, peer) (rafthttp_messages_queued{[[P]]})"), "{{instance}} → {{name}}")],
              empty="no peers", links=[TO_PEER]),
        lines(206, "Waiting for raft", "Received messages that are neither processed nor rejected yet.",
              "short", [query("sum by (instance) (rafthttp_messages_waiting{[[M]]})", "{{instance}}")], empty="no peers"),
        lines(207, "Unconfirmed", "Messages written to a stream that the peer had not read at its last answer. About 0 for a healthy peer under any load; growing for a peer that is frozen or does not read. etcd has no such metric.",
              "short", [query(named("sum by (job, cluster, instance, peer) (rafthttp_messages_unconfirmed{[[P]]})"), "{{instance}} → {{name}}")],
              empty="no peer reports what it reads (etcd does not)", links=[TO_PEER]),
        lines(208, "Lost", "Messages written to a stream that broke before the peer read them: they were counted as sent and did not arrive.",
              "cps", [query(named("sum by (job, cluster, instance, peer) (rate(rafthttp_messages_lost_total{[[P]]}[$__rate_interval]))"), "{{instance}} → {{name}}")],
              empty="no peer reports what it reads (etcd does not)", links=[TO_PEER]),
        lines(209, "Ledger, what does not add up", "offered − sent − dropped − queued, and received − processed − rejected − waiting, for every member. Always 0 in every scrape; any other value is a bug of rafthttp.",
              "none", [query(_imbalance("offered", ("sent", "dropped"), "queued"), "{{instance}} out"),
                       query(_imbalance("received", ("processed", "rejected"), "waiting"), "{{instance}} in")],
              empty="no messages yet", low=None),
        lines(210, "Without an addressee, or not readable", "Messages without a receiver, or to a member that is neither peer nor remote; and data from peers that could not be read.",
              "cps", [query(f"sum by (instance, reason) ({appeared('rafthttp_messages_unroutable_total', '[[M]]')})", "{{instance}} {{reason}}"),
                      query(f"sum by (instance, kind) ({appeared('rafthttp_frame_errors_total', '[[M]]')})", "{{instance}} frame: {{kind}}")],
              empty="none"),
    )


def _imbalance(start, ends, rest):
    """A law of the ledger by member. Series of a type or reason appear on first use: what is absent is 0."""
    total = "sum by (job, cluster, instance) (rafthttp_messages_%s{[[M]]})"
    zero = f"0 * {total % rest}"
    ended = " - ".join(f"({total % (name + '_total')} or {zero})" for name in ends)
    return f"({total % (start + '_total')} or {zero}) - {ended} - {total % rest}"


def round_trips(made):
    made.row(300, "Round trips")
    link = "job, cluster, instance, peer"
    made.add(
        lines(301, "Probe, p50", "Half of the probes of a peer took less. Raw round trips on a warm connection, one a second; a failed probe adds no sample.",
              "s", [query(named(quantile(0.5, "rafthttp_probe_duration_seconds", "[[P]]", link)), "{{instance}} → {{name}}")],
              empty="no probe came back", log=True, links=[TO_PEER]),
        lines(302, "Probe, p99", "One in a hundred probes of a peer took longer. Above 0.15 s, heartbeats at raft's default interval are at risk.",
              "s", [query(named(quantile(0.99, "rafthttp_probe_duration_seconds", "[[P]]", link)), "{{instance}} → {{name}}")],
              empty="no probe came back", log=True, limits=((0.15, BAD),), links=[TO_PEER]),
        lines(303, "Append round trip, p99", "Time from a sent append to the answer that covers it. It includes the network, the follower's disk and raft. Only the leader appends. Dots are traced messages: each leads to its trace.",
              "s", [traced(named(quantile(0.99, "rafthttp_append_round_trip_seconds", "[[P]]", link)), "{{instance}} → {{name}}")],
              empty="no append was answered", log=True, links=[TO_PEER]),
        lines(304, "Probes that failed, by how", "Failed probes by result: timeout, connect, tls, dns, status, body.",
              "cps", [query('sum by (instance, result) (rate(rafthttp_probes_total{[[P]], result!="ok"}[$__rate_interval]))', "{{instance}} {{result}}")],
              empty="nothing is probed", stack=True),
        lines(305, "Clock offset", "The peer's clock minus the member's clock, at the middle of a round trip. Leases and certificates suffer first.",
              "s", [query(named("rafthttp_peer_clock_offset_seconds{[[P]]}"), "{{instance}} → {{name}}")],
              empty="no probe came back", low=None, links=[TO_PEER]),
        lines(306, "Dialling, p99", "Phases of the dial of a probe. A probe dials only after a loss, or if the connection was not kept.",
              "s", [query(quantile(0.99, "rafthttp_probe_dial_seconds", "[[P]]", "instance, phase"), "{{instance}} {{phase}}")],
              empty="nothing was dialled", log=True, points="auto"),
        lines(307, "In the queue, p99", "Time from send to written, by channel. Long only on msgapp: large appends. Long on all channels: the network or the peer. Dots are traced messages: each leads to its trace.",
              "s", [traced(quantile(0.99, "rafthttp_queue_seconds", "[[P]]", "instance, channel"), "{{instance}} {{channel}}")],
              empty="nothing was sent", log=True),
        lines(308, "In raft, p99", "Time that a batch of messages took in the application. It does not include the network. Dots are traced messages: each leads to its trace.",
              "s", [traced(quantile(0.99, "rafthttp_process_seconds", "[[M]]", "instance"), "{{instance}}")],
              empty="nothing was received", log=True),
    )


def streams(made):
    made.row(400, "Streams")
    made.add(
        timeline(401, "Streams from each peer", "Both streams that a member dials to hear a peer.",
                 [query(named('min by (job, cluster, instance, peer) (rafthttp_stream_up{[[P]], direction="in"})'), "{{instance}} hears {{name}}")],
                 UP, empty="no peers", links=[TO_PEER]),
        lines(402, "Streams lost, by reason", "Lost streams by reason: eof (the other end closed), error, timeout (nothing read for 5 s), stalled (nothing written for 5 s), frame (unreadable), certificate (the peer's certificate no longer verifies), replaced (by a newer stream), stopped (by this member).",
              "cps", [query(f"sum by (instance, direction, reason) ({appeared('rafthttp_stream_losses_total', '[[P]]')})", "{{instance}} {{direction}} {{reason}}")],
              empty="no stream was lost", stack=True),
        lines(403, "Dials that failed, by how", "Failed dials by result: unreachable, tls, timeout, not_found (the peer does not know this member), removed, cluster_id_mismatch, incompatible_version, to_mismatch (another member answers), incarnation_refused (the peer does not hear this member), impostor (the peer is not the start that was met), refused.",
              "cps", [query('sum by (instance, result) (rate(rafthttp_stream_attempts_total{[[P]], result!="ok"}[$__rate_interval]))', "{{instance}} {{result}}")],
              empty="no peers", stack=True),
        lines(404, "Silence", "Time since the last frame from a peer, including link heartbeats. A stream without a frame for 5 s is closed.",
              "s", [query(named('time() - max by (job, cluster, instance, peer) (rafthttp_stream_last_frame_timestamp_seconds{[[P]], direction="in"})'), "{{instance}} ← {{name}}")],
              empty="no frame yet", limits=((5, BAD),), links=[TO_PEER]),
        lines(405, "Bytes out", "Exact bytes of frames and bodies, by channel.",
              "Bps", [query("sum by (instance, channel) (rate(rafthttp_sent_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} {{channel}}")],
              empty="no peers"),
        lines(406, "Bytes in", "Exact bytes of frames and bodies, by channel.",
              "Bps", [query("sum by (instance, channel) (rate(rafthttp_received_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} {{channel}}")],
              empty="no peers"),
    )


def snapshots(made):
    made.row(500, "Snapshots")
    made.add(
        lines(501, "Under way", "Snapshots being sent and received.",
              "none", [query("sum by (instance, direction) (rafthttp_snapshots_in_flight{[[P]]})", "{{instance}} {{direction}}")],
              empty="no peers", size=(8, 8)),
        lines(502, "Progress", "The transferred share of the snapshot in progress. A flat line means a stuck snapshot.",
              "percentunit", [query("max by (instance, peer, direction) (rafthttp_snapshot_progress_ratio{[[P]]})", "{{instance}} {{direction}} {{peer}}")],
              empty="no snapshot is under way", size=(8, 8), points="always"),
        lines(503, "Ended, by result", "Snapshots that ended, by result: arrived or failed.",
              "cps", [query("sum by (instance, direction, result) (rate(rafthttp_snapshots_total{[[P]]}[$__rate_interval]))", "{{instance}} {{direction}} {{result}}")],
              empty="no peers", size=(8, 8)),
        lines(504, "Bytes", "Bytes of snapshot bodies.",
              "Bps", [query("sum by (instance, direction) (rate(rafthttp_snapshot_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} {{direction}}")],
              empty="no peers"),
        lines(505, "Time, p90", "Duration of successful snapshots.",
              "s", [query(quantile(0.9, "rafthttp_snapshot_seconds", "[[P]]", "instance, direction"), "{{instance}} {{direction}}")],
              empty="no snapshot ended in the interval", points="always"),
        lines(506, "Time left", "How long the snapshots in progress still take at their rate of the last ten seconds.",
              "s", [query("max by (instance, peer, direction) (rafthttp_snapshot_left_bytes{[[P]]} / (rafthttp_snapshot_bytes_per_second{[[P]]} > 0))", "{{instance}} {{direction}} {{peer}}")],
              empty="no snapshot is in progress", points="always"),
        lines(507, "Yielded to heartbeats", "How often snapshots became slower because heartbeats were late.",
              "short", [query("sum by (instance) (increase(rafthttp_snapshot_yields_total{[[M]]}[$__rate_interval]))", "{{instance}}")],
              empty="none scraped"),
        lines(508, "Spared and sent again", "Bytes of snapshots that were there already when one continued after its connection broke, and bytes that had to be sent again.",
              "Bps", [query("sum by (instance, direction) (rate(rafthttp_snapshot_resumed_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} {{direction}} spared"),
                      query("sum by (instance) (rate(rafthttp_snapshot_resent_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} sent again")],
              empty="no peers"),
        lines(509, "Started over, by reason", "Snapshots that broke off and did not continue. another: their sender sent another one. checksum: what arrived was not what was sent. lost: their receiver had lost its part.",
              "cps", [query("sum by (instance, direction, reason) (rate(rafthttp_snapshot_restarts_total{[[P]]}[$__rate_interval]))", "{{instance}} {{direction}} {{reason}}")],
              empty="no peers"),
    )


def raft(made):
    made.row(600, "Raft")
    made.add(
        timeline(601, "Who leads", "Whether a member leads, follows, or knows no leader.",
                 [query("max by (instance) (etcd_server_has_leader{[[M]]} + etcd_server_is_leader{[[M]]})", "{{instance}}")],
                 {2: ("leads", "blue"), 1: ("follows", GOOD), 0: ("no leader", BAD)}, empty="no member runs raft"),
        lines(602, "Leader changes", "Leader changes that a member saw, per second. Each change pauses writes.",
              "cps", [query("sum by (instance) (rate(etcd_server_leader_changes_seen_total{[[M]]}[$__rate_interval]))", "{{instance}}")],
              empty="no member runs raft"),
        lines(603, "Commits", "Growth of the commit index and the applied index. If they differ for long, the member cannot apply fast enough.",
              "wps", [query("sum by (instance) (deriv(etcd_server_proposals_committed_total{[[M]]}[$__rate_interval]))", "{{instance}} committed"),
                      query("sum by (instance) (deriv(etcd_server_proposals_applied_total{[[M]]}[$__rate_interval]))", "{{instance}} applied")],
              empty="no member runs raft", low=None),
        lines(604, "Behind", "Entries between the highest commit index of all members and a member's applied index.",
              "short", [query("max by (job, cluster) (etcd_server_proposals_committed_total{[[C]]}) - on (job, cluster) group_right () max by (job, cluster, instance) (etcd_server_proposals_applied_total{[[M]]})", "{{instance}}")],
              empty="no member runs raft"),
        lines(605, "Proposals pending", "Proposals of a member's clients that are not committed yet.",
              "short", [query("sum by (instance) (etcd_server_proposals_pending{[[M]]})", "{{instance}}")], empty="no member runs raft"),
        lines(606, "Proposals failed", "Proposals of a member's clients that ended without an outcome.",
              "cps", [query("sum by (instance) (rate(etcd_server_proposals_failed_total{[[M]]}[$__rate_interval]))", "{{instance}}")],
              empty="no member runs raft"),
        lines(607, "Data", "Bytes of all keys and values (the same on every member), and the quotas above which the cluster refuses puts.",
              "bytes", [query("sum by (instance) (rafthttp_store_data_bytes{[[M]]})", "{{instance}} data"),
                        query("sum by (instance) (rafthttp_store_quota_bytes{[[M]]})", "{{instance}} quota")], empty="no member runs raft"),
        timeline(608, "Disk", "Whether a member takes part or cannot write to its disk, and whether puts are refused because there is no space.",
                 [query("max by (instance) (2 * rafthttp_store_suspended{[[M]]} + rafthttp_store_no_space{[[M]]})", "{{instance}}")],
                 {0: ("writes", GOOD), 1: ("no space", WARN), 2: ("suspended", BAD), 3: ("suspended", BAD)}, empty="no member runs raft"),
        lines(609, "File", "Bytes of the file with keys and values. The log has its own files.", "bytes",
              [query("sum by (instance) (rafthttp_store_file_bytes{[[M]]})", "{{instance}}")], empty="no member runs raft"),
        lines(610, "Log", "Bytes of the log's entries, and the most that a leader keeps for members that are behind. Also snapshots that came too late: their receivers need another one.", "bytes",
              [query("sum by (instance) (rafthttp_store_log_bytes{[[M]]})", "{{instance}} log"),
               query("max by (cluster) (rafthttp_store_log_limit_bytes{[[M]]})", "at most"),
               query("sum by (instance) (increase(rafthttp_store_snapshots_overtaken_total{[[M]]}[$__rate_interval]))", "{{instance}} snapshots too late")], empty="no member runs raft"),
    )


def process(made):
    made.row(700, "Process, TLS, traces")
    made.add(
        lines(701, "CPU", "CPU cores used.", "none", [query("sum by (instance) (rate(process_cpu_seconds_total{[[M]]}[$__rate_interval]))", "{{instance}}")],
              empty="none scraped", size=(8, 7)),
        lines(702, "Memory", "Resident memory.", "bytes", [query("sum by (instance) (process_resident_memory_bytes{[[M]]})", "{{instance}}")],
              empty="none scraped", size=(8, 7)),
        lines(703, "Open files", "Open file descriptors. Most of them are connections.", "short", [query("sum by (instance) (process_open_fds{[[M]]})", "{{instance}}")],
              empty="none scraped", size=(8, 7)),
        stat(704, "Certificate expires in", "Time until the earliest expiry in the chain that a member shows its peers, including its CA. A new file is read without a restart.",
             "s", [now("min by (instance) (rafthttp_tls_certificate_expiry_timestamp_seconds{[[M]]}) - time()", "{{instance}}")],
             empty="no TLS", steps=((None, BAD), (7 * 86400, WARN), (30 * 86400, GOOD)), size=(8, 7), text="value_and_name"),
        lines(705, "TLS handshakes that failed", "Failed TLS handshakes, by direction of the dial and by reason.",
              "cps", [query(f"sum by (instance, direction, reason) ({appeared('rafthttp_tls_handshake_failures_total', '[[M]]')})", "{{instance}} {{direction}} {{reason}}")],
              empty="none failed, or no TLS", size=(8, 7)),
        lines(706, "Certificates read again", "Changed certificate files by result: ok, or failed (the old files stay in use).",
              "cps", [query("sum by (instance, result) (rate(rafthttp_tls_reloads_total{[[M]]}[$__rate_interval]))", "{{instance}} {{result}}")],
              empty="no TLS", size=(8, 7)),
        lines(707, "Trace spans", "Spans that the collector accepted, and spans that were dropped because it did not.",
              "cps", [query("sum by (instance) (rate(rafthttp_trace_spans_exported_total{[[M]]}[$__rate_interval]))", "{{instance}} exported"),
                      query("sum by (instance) (rate(rafthttp_trace_spans_dropped_total{[[M]]}[$__rate_interval]))", "{{instance}} dropped")],
              empty="no traces are exported"),
        table(708, "Versions", "The version of each member.", "none",
              [now("max by (instance, version, member, cluster_id) (rafthttp_build_info{[[M]]} * on (job, cluster, instance) group_left (member, cluster_id) rafthttp_member_info{[[M]]})")],
              empty="none scraped",
              transformations=[only("instance", "version", "member", "cluster_id", instance="scraped at", cluster_id="cluster")], sort=["scraped at"]),
    )
