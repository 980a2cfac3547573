"""One peer in depth: what the members measure about it, and what it measures about them."""

from links import BAD, EXPLAINED, GOOD, STATES, UP, WARN, state
from panels import (
    Dashboard, appeared, heatmap, lines, members, named, now, only, quantile, query, stat, table, timeline, traced,
    variable,
)

BUILD = "rafthttp_build_info"
KNOWN = 'rafthttp_peer_info{job=~"$job", cluster=~"$cluster"}'


def dashboard():
    """The dashboard `rafthttp-peer`."""
    about = """One peer, from both sides: what each member measures about it, and, if it is scraped itself, what it measures
    about them. A link that is broken in one direction looks good on one side here and bad on the other."""
    peer = variable("peer", "Peer", f'query_result(count by (peer, text) (label_join({KNOWN}, "text", " ", "name", "peer")))',
                    regex='/peer="(?<value>[^"]+)".*text="(?<text>[^"]+)"/', multi=False, everything=None,
                    about="The peer that the dashboard shows.")
    made = Dashboard("rafthttp-peer", "Raft network / Peer", about, [*members(BUILD), peer],
                     tags=["raft-network", "rafthttp"], since=BUILD)
    at_a_glance(made)
    ledger(made)
    times(made)
    streams(made)
    snapshots(made)
    return made.json()


def itself(expression):
    """The peer's own metrics, as a member."""
    return f'({expression}) * on (job, cluster, instance) group_left () max by (job, cluster, instance) (rafthttp_member_info{{[[C]], member=~"$peer"}})'


def at_a_glance(made):
    made.row(100, "At a glance")
    made.add(
        stat(101, "Reached by", "Members whose last probe of the peer succeeded, and members that probe it.", "none",
             [now("sum(rafthttp_peer_reachable{[[P]]})", "reach it"), now("count(rafthttp_peer_reachable{[[P]]})", "probe it")],
             empty="nobody probes it", text="value_and_name"),
        stat(102, "Round trip, p99", "Over all members' probes of the last five minutes.", "s",
             [now("histogram_quantile(0.99, sum by (le) (rate(rafthttp_probe_duration_seconds_bucket{[[P]]}[5m])))")],
             empty="no probe came back", steps=((None, GOOD), (0.05, WARN), (0.15, BAD))),
        stat(103, "Unconfirmed", "Messages written to its streams that it had not read at its last answer; the highest number of any member.", "short",
             [now("max(sum by (instance) (rafthttp_messages_unconfirmed{[[P]]}))")], empty="it does not report",
             steps=((None, GOOD), (1000, WARN))),
        stat(104, "Streams down", "Streams to and from this peer that are not open.", "none",
             [now("sum(1 - rafthttp_stream_up{[[P]]})")], empty="no streams", steps=((None, GOOD), (1, WARN))),
        stat(105, "Dropped, 5 min", "Messages to this peer that were dropped in five minutes.", "short",
             [now(f"300 * sum({appeared('rafthttp_messages_dropped_total', '[[P]]', '5m')})")], empty="none",
             steps=((None, GOOD), (1, WARN))),
        stat(106, "Lost, 5 min", "Messages lost in five minutes: they were written to a stream that broke before this peer read them.", "short",
             [now("sum(increase(rafthttp_messages_lost_total{[[P]]}[5m]))")], empty="it does not report",
             steps=((None, GOOD), (1, WARN))),
    )
    made.add(
        timeline(107, "How each member reaches it", EXPLAINED, [query(state("[[P]]"), "{{instance}}")], STATES, empty="nobody probes it"),
        timeline(108, "How it reaches each member", "The same, as the peer itself measures it. Empty if the peer is not scraped: then its links are unknown.",
                 [query(named(itself(state("[[C]]"))), "{{name}}")], STATES, empty="the peer is not scraped"),
        table(109, "Who it is", "The members' information about the peer. More than one row means that they do not agree.", "none",
              [now("count by (peer, name, urls) (rafthttp_peer_info{[[C]], peer=~\"$peer\"})")], empty="unknown", size=(24, 4),
              transformations=[only("peer", "name", "urls", peer="ID")]),
    )


def ledger(made):
    made.row(200, "Ledger")
    made.add(
        lines(201, "Handed over for it, by type", "Messages to this peer that raft gave to the transport.", "cps",
              [query("sum by (instance, type) (rate(rafthttp_messages_offered_total{[[P]]}[$__rate_interval]))", "{{instance}} {{type}}")],
              empty="no messages for it"),
        lines(202, "Sent, by channel", "Messages that were given to the connection of a stream, or whose POST succeeded. pipeline: there was no stream.", "cps",
              [query("sum by (instance, channel) (rate(rafthttp_messages_sent_total{[[P]]}[$__rate_interval]))", "{{instance}} {{channel}}")],
              empty="nothing was sent to it"),
        lines(203, "Dropped, by channel and reason", "Messages dropped before they left, by reason.", "cps",
              [query(f"sum by (instance, channel, reason) ({appeared('rafthttp_messages_dropped_total', '[[P]]')})", "{{instance}} {{channel}} {{reason}}")],
              empty="nothing was dropped", stack=True),
        lines(204, "Queued, by channel", "Messages that are neither sent nor dropped yet. The bound is 4096 messages and 64 MiB on each channel.", "short",
              [query("sum by (instance, channel) (rafthttp_messages_queued{[[P]]})", "{{instance}} {{channel}}")],
              empty="not a peer of anyone"),
        lines(205, "Unconfirmed, by channel", "Messages written to the stream that the peer had not read at its last answer. If it stops answering, the last sample stays until a new stream is open.", "short",
              [query("sum by (instance, channel) (rafthttp_messages_unconfirmed{[[P]]})", "{{instance}} {{channel}}")],
              empty="it does not report what it reads"),
        lines(206, "Lost, by channel", "Messages written to a stream that broke before the peer read them.", "cps",
              [query("sum by (instance, channel) (rate(rafthttp_messages_lost_total{[[P]]}[$__rate_interval]))", "{{instance}} {{channel}}")],
              empty="it does not report what it reads"),
        lines(207, "Received from it, by type", "Messages decoded from the wire, without link heartbeats.", "cps",
              [query("sum by (instance, type) (rate(rafthttp_messages_received_total{[[P]]}[$__rate_interval]))", "{{instance}} {{type}}")],
              empty="nothing came from it"),
        lines(208, "Rejected, by type and reason", "Messages from this peer that were rejected.", "cps",
              [query(f"sum by (instance, type, reason) ({appeared('rafthttp_messages_rejected_total', '[[P]]')})", "{{instance}} {{type}} {{reason}}")],
              empty="nothing was rejected", stack=True),
        lines(209, "Bytes to it", "Exact bytes of frames and bodies, by channel.", "Bps",
              [query("sum by (instance, channel) (rate(rafthttp_sent_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} {{channel}}")],
              empty="not a peer of anyone"),
        lines(210, "Bytes from it", "Exact bytes of frames and bodies, by channel.", "Bps",
              [query("sum by (instance, channel) (rate(rafthttp_received_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} {{channel}}")],
              empty="not a peer of anyone"),
    )


def times(made):
    made.row(300, "Times")
    made.add(
        heatmap(301, "Probes of it", "Distribution of the round trips of its probes. Two bands mean two network paths, or a cold connection.", "s",
                [query("sum by (le) (increase(rafthttp_probe_duration_seconds_bucket{[[P]]}[$__rate_interval]))")], empty="no probe came back"),
        lines(302, "Probe, p50 and p99", "Round trips on a warm connection, by the probing member.", "s",
              [query(quantile(0.5, "rafthttp_probe_duration_seconds", "[[P]]", "instance"), "{{instance}} p50"),
               query(quantile(0.99, "rafthttp_probe_duration_seconds", "[[P]]", "instance"), "{{instance}} p99")],
              empty="no probe came back", log=True),
        lines(303, "The way back, p50 and p99", "The peer's own probes of the other members.", "s",
              [query(named(itself(quantile(q, "rafthttp_probe_duration_seconds", "[[C]]", "job, cluster, instance, peer"))), "{{name}} p%d" % (100 * q))
               for q in (0.5, 0.99)],
              empty="the peer is not scraped", log=True),
        lines(304, "Append round trip, p50 and p99", "Time from a sent append to the answer that covers it, on the leader. Dots are traced messages: each leads to its trace.", "s",
              [query(quantile(0.5, "rafthttp_append_round_trip_seconds", "[[P]]", "instance"), "{{instance}} p50"),
               traced(quantile(0.99, "rafthttp_append_round_trip_seconds", "[[P]]", "instance"), "{{instance}} p99")],
              empty="no append was answered", log=True),
        lines(305, "Probes, by how they ended", "Probes by result: ok, timeout, connect, tls, dns, status, body.", "cps",
              [query("sum by (instance, result) (rate(rafthttp_probes_total{[[P]]}[$__rate_interval]))", "{{instance}} {{result}}")],
              empty="nobody probes it", stack=True),
        lines(306, "Dialling it, p99", "Phases of the dial of a probe, if it had to dial.", "s",
              [query(quantile(0.99, "rafthttp_probe_dial_seconds", "[[P]]", "instance, phase"), "{{instance}} {{phase}}")],
              empty="it was not dialled", log=True, points="auto"),
        lines(307, "Clock offset", "The peer's clock minus the member's clock, at the middle of a round trip.", "s",
              [query("max by (instance) (rafthttp_peer_clock_offset_seconds{[[P]]})", "{{instance}}")], empty="no probe came back", low=None),
        lines(308, "In the queue for it, p50 and p99", "Time from send to written, over all channels. Dots are traced messages: each leads to its trace.", "s",
              [query(quantile(0.5, "rafthttp_queue_seconds", "[[P]]", "instance"), "{{instance}} p50"),
               traced(quantile(0.99, "rafthttp_queue_seconds", "[[P]]", "instance"), "{{instance}} p99")],
              empty="nothing was sent to it", log=True),
    )


def streams(made):
    made.row(400, "Streams")
    made.add(
        timeline(401, "Each stream", "out: the peer dialled the stream, to hear the member. in: the member dialled it, to hear the peer.",
                 [query("max by (instance, channel, direction) (rafthttp_stream_up{[[P]]})", "{{instance}} {{channel}} {{direction}}")],
                 UP, empty="no streams"),
        lines(402, "Silence", "Time since the last frame, including link heartbeats.", "s",
              [query("time() - max by (instance, channel, direction) (rafthttp_stream_last_frame_timestamp_seconds{[[P]]})", "{{instance}} {{channel}} {{direction}}")],
              empty="no frame yet", limits=((5, BAD),)),
        lines(403, "Lost, by reason", "Lost streams by reason: eof, error, timeout, stalled, frame, certificate, replaced, stopped.", "cps",
              [query(f"sum by (instance, channel, direction, reason) ({appeared('rafthttp_stream_losses_total', '[[P]]')})", "{{instance}} {{channel}} {{direction}} {{reason}}")],
              empty="no stream was lost", stack=True),
        lines(404, "Dials of it, by how they ended", "Dials by result: ok, unreachable, tls, timeout, not_found, removed, cluster_id_mismatch, incompatible_version, to_mismatch, incarnation_refused (the peer does not hear this member), impostor (the peer is not the start that was met), refused.", "cps",
              [query("sum by (instance, result) (rate(rafthttp_stream_attempts_total{[[P]]}[$__rate_interval])) > 0", "{{instance}} {{result}}")],
              empty="it was not dialled", stack=True),
        lines(405, "Frames that could not be read", "Frames from the peer that could not be read, by kind of error.", "cps",
              [query(f"sum by (instance, channel, kind) ({appeared('rafthttp_frame_errors_total', '[[P]]')})", "{{instance}} {{channel}} {{kind}}")],
              empty="not a peer of anyone"),
        timeline(406, "Active, as etcd means it", "Whether the last stream or request succeeded. One flag stands for four streams, so a loss in one direction may not show.",
                 [query("max by (instance) (rafthttp_peer_active{[[P]]})", "{{instance}}")], {1: ("active", GOOD), 0: ("inactive", BAD)},
                 empty="not a peer of anyone"),
    )


def snapshots(made):
    made.row(500, "Snapshots")
    made.add(
        lines(501, "Under way", "Snapshots to the peer (out) and from it (in).", "none",
              [query("sum by (instance, direction) (rafthttp_snapshots_in_flight{[[P]]})", "{{instance}} {{direction}}")],
              empty="not a peer of anyone", size=(8, 8)),
        lines(502, "Progress", "The transferred share of the snapshot in progress.", "percentunit",
              [query("max by (instance, direction) (rafthttp_snapshot_progress_ratio{[[P]]})", "{{instance}} {{direction}}")],
              empty="no snapshot is under way", size=(8, 8), points="always"),
        lines(503, "Ended, by result", "Snapshots that ended, by result: arrived or failed.", "cps",
              [query("sum by (instance, direction, result) (rate(rafthttp_snapshots_total{[[P]]}[$__rate_interval]))", "{{instance}} {{direction}} {{result}}")],
              empty="not a peer of anyone", size=(8, 8)),
        lines(504, "Rate", "Bytes of snapshots in a second. limit: what the sender lets through, all its snapshots together, while there is a bound.", "Bps",
              [query("max by (instance, direction) (rafthttp_snapshot_bytes_per_second{[[P]]})", "{{instance}} {{direction}}"),
               query("max by (instance) (rafthttp_snapshot_limit_bytes_per_second{[[C]]})", "{{instance}} limit")],
              empty="no snapshot is in progress", points="always"),
        lines(505, "Time left", "How long the snapshot still takes at this rate.", "s",
              [query("max by (instance, direction) (rafthttp_snapshot_left_bytes{[[P]]} / (rafthttp_snapshot_bytes_per_second{[[P]]} > 0))", "{{instance}} {{direction}}")],
              empty="no snapshot is in progress", points="always"),
        lines(506, "Spared and sent again", "Bytes of snapshots that were there already when one continued after its connection broke, and bytes that had to be sent again.", "Bps",
              [query("sum by (instance, direction) (rate(rafthttp_snapshot_resumed_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} {{direction}} spared"),
               query("sum by (instance) (rate(rafthttp_snapshot_resent_bytes_total{[[P]]}[$__rate_interval]))", "{{instance}} sent again")],
              empty="not a peer of anyone"),
        lines(507, "Started over, by reason", "Snapshots that broke off and did not continue: their sender sent another one, the checksum was wrong, or their receiver had lost its part.", "cps",
              [query("sum by (instance, direction, reason) (rate(rafthttp_snapshot_restarts_total{[[P]]}[$__rate_interval]))", "{{instance}} {{direction}} {{reason}}")],
              empty="not a peer of anyone"),
    )
