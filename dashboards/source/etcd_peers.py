"""The network of any etcd cluster, by etcd's own metrics alone: works on etcd 3.4 to 3.7 and on rafthttp."""

from links import BAD, GOOD, WARN
from panels import Dashboard, appeared, lines, mapping, members, now, quantile, query, stat, table, timeline, variable

SERVER = "etcd_server_has_leader"
TO, FROM = '[[M]], To=~"$peer"', '[[M]], From=~"$peer"'


def dashboard():
    """The dashboard `etcd-peers`."""
    about = """What etcd's own metrics say about the network between its members, and what they cannot say: etcd counts the
    bytes that it wrote, not those that arrived, and shows round trips that never took place."""
    peer = variable("peer", "Peer", 'label_values(etcd_network_active_peers{job=~"$job", cluster=~"$cluster", instance=~"$instance"}, Remote)',
                    about="The other end, by its ID.")
    made = Dashboard("etcd-peers", "Raft network / etcd peers", about, [*members(SERVER), peer], tags=["raft-network", "etcd"],
                     since=SERVER)
    at_a_glance(made)
    traffic(made)
    round_trips(made)
    snapshots(made)
    raft(made)
    return made.json()


def at_a_glance(made):
    made.row(100, "Who is connected to whom")
    made.add(
        stat(101, "Members", "Number of members that are scraped, and number of members that know a leader.", "none",
             [now("count(etcd_server_has_leader{[[M]]})", "scraped"), now("sum(etcd_server_has_leader{[[M]]})", "know a leader")],
             empty="none scraped", text="value_and_name"),
        stat(102, "Inactive", "Pairs of a member and a peer that it reports as inactive. One flag stands for four streams and the requests, so a loss in one direction may not show, or makes the flag flap.",
             "none", [now('sum(1 - clamp_max(etcd_network_active_peers{[[M]], Remote=~"$peer"}, 1))')], empty="no peers", steps=((None, GOOD), (1, BAD))),
        stat(103, "Disconnects, 5 min", "Number of times that a peer became inactive in five minutes.", "short",
             [now("300 * sum(%s)" % appeared("etcd_network_disconnected_peers_total", '[[M]], Remote=~"$peer"', "5m", SERVER))],
             empty="none", steps=((None, GOOD), (1, WARN))),
        stat(104, "Send failures, 5 min", "Requests and streams to peers that failed in five minutes. A message written to a frozen peer does not count as a failure.",
             "short", [now("300 * sum(%s)" % appeared("etcd_network_peer_sent_failures_total", TO, "5m", SERVER))], empty="none",
             steps=((None, GOOD), (1, WARN))),
        stat(105, "Round trip, p99", "Between any two members, over the last five minutes. *Round trips* says how far to trust it.", "s",
             [now(f"histogram_quantile(0.99, sum by (le) (rate(etcd_network_peer_round_trip_time_seconds_bucket{{{TO}}}[5m])))")],
             empty="no samples", steps=((None, GOOD), (0.05, WARN), (0.15, BAD))),
        stat(106, "Leader changes, 1 h", "The highest number that any member saw in an hour.", "short",
             [now("max(increase(etcd_server_leader_changes_seen_total{[[M]]}[1h]))")], empty="none scraped", steps=((None, GOOD), (1, WARN), (4, BAD))),
    )
    states = {1: ("active", GOOD), 0: ("inactive", BAD)}
    made.add(
        table(107, "Active peers", "A row for each member, a column for each peer, by ID, because etcd's metrics have no names. The cell of a member with itself is empty.",
              "none", [now('max by (Local, Remote) (clamp_max(etcd_network_active_peers{[[M]], Remote=~"$peer"}, 1))')],
              empty=" ", cell="color-background",
              defaults={"mappings": mapping(states), "color": {"mode": "thresholds"},
                        "thresholds": {"mode": "absolute", "steps": [{"value": None, "color": "transparent"}]}},
              overrides=[{"matcher": {"id": "byName", "options": "Local\\Remote"},
                          "properties": [{"id": "displayName", "value": "member \\ peer"},
                                         {"id": "custom.cellOptions", "value": {"type": "auto"}}]}],
              transformations=[{"id": "sortBy", "options": {"sort": [{"field": "Remote"}]}},
                               {"id": "sortBy", "options": {"sort": [{"field": "Local"}]}},
                               {"id": "groupingToMatrix", "options": {"columnField": "Remote", "rowField": "Local", "valueField": "Value", "emptyValue": "null"}}]),
        timeline(108, "Active peers over time", "Whether the last stream or request succeeded. A frozen peer stays active until its connections time out.",
                 [query('max by (instance, Remote) (clamp_max(etcd_network_active_peers{[[M]], Remote=~"$peer"}, 1))', "{{instance}} → {{Remote}}")],
                 states, empty="no peers"),
    )


def traffic(made):
    made.row(200, "Traffic")
    made.add(
        lines(201, "Bytes to each peer", "The protobuf size of the written messages, including link heartbeats. It is neither the size of the frames nor what arrived.", "Bps",
              [query(f"sum by (instance, To) (rate(etcd_network_peer_sent_bytes_total{{{TO}}}[$__rate_interval]))", "{{instance}} → {{To}}")],
              empty="no traffic"),
        lines(202, "Bytes from each peer", "By the sender in the message; another member may have forwarded it. 0: the message names no sender.", "Bps",
              [query(f"sum by (instance, From) (rate(etcd_network_peer_received_bytes_total{{{FROM}}}[$__rate_interval]))", "{{instance}} ← {{From}}")],
              empty="no traffic"),
        lines(203, "Send failures", "Failed requests and streams by peer.", "cps",
              [query("sum by (instance, To) (%s)" % appeared("etcd_network_peer_sent_failures_total", TO, since=SERVER), "{{instance}} → {{To}}")],
              empty="nothing failed"),
        lines(204, "Receive failures", "Failed streams by peer. etcd labels some strangers by address here.", "cps",
              [query("sum by (instance, From) (%s)" % appeared("etcd_network_peer_received_failures_total", FROM, since=SERVER), "{{instance}} ← {{From}}")],
              empty="nothing failed"),
        lines(205, "Sent and not received", "Bytes per second that a member counts as sent to a peer, minus those that the peer counts as received from it. Near 0 for a healthy link. A peer that is frozen or does not read shows here while the writer's buffers have room.",
              "Bps", [query(_sent_not_received(), "{{Local}} → {{Remote}}")], empty="both ends must be scraped", low=None, size=(24, 8)),
    )


def _sent_not_received():
    """Sent minus received, by sender and receiver. `etcd_network_active_peers` tells which member an instance is."""
    own = 'max by (job, cluster, instance, Local) (clamp_max(etcd_network_active_peers{[[C]]}, 0) + 1)'
    sent = 'label_replace(rate(etcd_network_peer_sent_bytes_total{[[C]], To=~"$peer"}[$__rate_interval]), "Remote", "$1", "To", "(.+)")'
    sent = f"sum by (Local, Remote) ({sent} * on (job, cluster, instance) group_left (Local) {own})"
    got = f"rate(etcd_network_peer_received_bytes_total{{[[C]]}}[$__rate_interval]) * on (job, cluster, instance) group_left (Local) {own}"
    got = f'label_replace(label_replace({got}, "Remote", "$1", "Local", "(.+)"), "Local", "$1", "From", "(.+)")'
    return f"{sent} - sum by (Local, Remote) ({got})"


def round_trips(made):
    made.row(300, "Round trips")
    rtt = "etcd_network_peer_round_trip_time_seconds"
    made.add(
        lines(301, "Round trip, p50", "etcd smooths this value, and observes the last one again when a probe fails, so a frozen peer keeps its good round trip. On rafthttp: raw, successful probes only.", "s",
              [query(quantile(0.5, rtt, TO, "instance, To"), "{{instance}} → {{To}}")], empty="no samples in the interval", log=True, points="auto"),
        lines(302, "Round trip, p99", "The same for the slowest of a hundred.", "s",
              [query(quantile(0.99, rtt, TO, "instance, To"), "{{instance}} → {{To}}")], empty="no samples in the interval", log=True, points="auto", limits=((0.15, BAD),)),
        lines(303, "Samples", "Observed round trips. etcd has two probers; each observes every 30 s if the peer is healthy and every 5 s if not, so more samples mean a worse link. rafthttp observes each second in which the peer answers.", "cps",
              [query(f"sum by (instance, To) (rate({rtt}_count{{{TO}}}[2m]))", "{{instance}} → {{To}}")], empty="no samples"),
        lines(304, "Too fast to be true", "The share of samples below 0.1 ms. Near 100 % between two machines means a peer that etcd never reached: etcd then observes 0.", "percentunit",
              [query(f'sum by (instance, To) (rate({rtt}_bucket{{{TO}, le="0.0001"}}[5m])) / sum by (instance, To) (rate({rtt}_count{{{TO}}}[5m]))', "{{instance}} → {{To}}")],
              empty="no samples in the interval"),
    )


def snapshots(made):
    made.row(400, "Snapshots")
    sends, receives = "etcd_network_snapshot_send", "etcd_network_snapshot_receive"
    made.add(
        lines(401, "Under way", "Snapshots being sent and received.", "none",
              [query(f"sum by (instance, To) ({sends}_inflights_total{{{TO}}})", "{{instance}} → {{To}}"),
               query(f"sum by (instance, From) ({receives}_inflights_total{{{FROM}}})", "{{instance}} ← {{From}}")],
              empty="no snapshot since the start", size=(8, 8)),
        lines(402, "Ended", "Snapshots that ended, by result: arrived or failed.", "cps",
              [query("sum by (instance, To) (%s)" % appeared(f"{sends}_success", TO, since=SERVER), "{{instance}} → {{To}} sent"),
               query("sum by (instance, To) (%s)" % appeared(f"{sends}_failures", TO, since=SERVER), "{{instance}} → {{To}} failed"),
               query("sum by (instance, From) (%s)" % appeared(f"{receives}_success", FROM, since=SERVER), "{{instance}} ← {{From}} received"),
               query("sum by (instance, From) (%s)" % appeared(f"{receives}_failures", FROM, since=SERVER), "{{instance}} ← {{From}} failed")],
              empty="no snapshot in the interval", size=(8, 8)),
        lines(403, "Time, mean", "Mean duration of all snapshots since the member's start, because snapshots are too rare for a rate.", "s",
              [query(f"sum by (instance, To) ({sends}_total_duration_seconds_sum{{{TO}}}) / sum by (instance, To) ({sends}_total_duration_seconds_count{{{TO}}})", "{{instance}} → {{To}}"),
               query(f"sum by (instance, From) ({receives}_total_duration_seconds_sum{{{FROM}}}) / sum by (instance, From) ({receives}_total_duration_seconds_count{{{FROM}}})", "{{instance}} ← {{From}}")],
              empty="no snapshot since the start", size=(8, 8), points="auto"),
    )


def raft(made):
    made.row(500, "Raft")
    made.add(
        timeline(501, "Who leads", "Whether a member leads, follows, or knows no leader.",
                 [query("max by (instance) (etcd_server_has_leader{[[M]]} + etcd_server_is_leader{[[M]]})", "{{instance}}")],
                 {2: ("leads", "blue"), 1: ("follows", GOOD), 0: ("no leader", BAD)}, empty="none scraped"),
        lines(502, "Proposals", "Growth of the commit index and the applied index.", "wps",
              [query("sum by (instance) (deriv(etcd_server_proposals_committed_total{[[M]]}[$__rate_interval]))", "{{instance}} committed"),
               query("sum by (instance) (deriv(etcd_server_proposals_applied_total{[[M]]}[$__rate_interval]))", "{{instance}} applied")],
              empty="none scraped", low=None),
        lines(503, "Proposals pending and failed", "Proposals that are not committed yet, and failed proposals per second.", "short",
              [query("sum by (instance) (etcd_server_proposals_pending{[[M]]})", "{{instance}} pending"),
               query("sum by (instance) (rate(etcd_server_proposals_failed_total{[[M]]}[$__rate_interval]))", "{{instance}} failed a second")],
              empty="none scraped"),
        lines(504, "Leader changes", "Leader changes that a member saw, per second.", "cps",
              [query("sum by (instance) (rate(etcd_server_leader_changes_seen_total{[[M]]}[$__rate_interval]))", "{{instance}}")], empty="none scraped"),
    )
