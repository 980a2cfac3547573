"""The questions that etcd's published dashboard and alerts ask of the network and of raft, in words of our own.

Their answers on our metrics have the shape that they have on etcd's: the same labels, as many series.
"""

import answers

WINDOW = "10s"

QUERIES = {
    "members up": "up == 1",
    "whether each has a leader": "etcd_server_has_leader",
    "members with a leader": "sum(etcd_server_has_leader)",
    "who leads": "max by (instance) (etcd_server_is_leader)",
    "members missing for a quorum": "sum without (instance) (up == bool 1) < bool ((count without (instance) (up) + 1) / 2)",
    "members down": "sum without (instance) (up == bool 0)",
    "leader changes": f"changes(etcd_server_leader_changes_seen_total[{WINDOW}])",
    "leader changes counted": f"increase(etcd_server_leader_changes_seen_total[{WINDOW}])",
    "most leader changes": f"max without (instance) (increase(etcd_server_leader_changes_seen_total[{WINDOW}]))",
    "proposals failed": f"sum(rate(etcd_server_proposals_failed_total[{WINDOW}]))",
    "proposals pending": "sum(etcd_server_proposals_pending)",
    "proposals committed": f"sum(rate(etcd_server_proposals_committed_total[{WINDOW}]))",
    "proposals applied": f"sum(rate(etcd_server_proposals_applied_total[{WINDOW}]))",
    "proposals applied by member": f"rate(etcd_server_proposals_applied_total[{WINDOW}])",
    "bytes from peers": f"sum by (instance) (rate(etcd_network_peer_received_bytes_total[{WINDOW}]))",
    "bytes to peers": f"sum by (instance) (rate(etcd_network_peer_sent_bytes_total[{WINDOW}]))",
    "bytes to each peer": f"rate(etcd_network_peer_sent_bytes_total[{WINDOW}])",
    "active peers": "etcd_network_active_peers",
    "round trip between members": "histogram_quantile(0.99, sum by (instance, le) (rate(etcd_network_peer_round_trip_time_seconds_bucket[1m])))",
    "round trip between members, each": "histogram_quantile(0.99, rate(etcd_network_peer_round_trip_time_seconds_bucket[1m]))",
    "slow communication": "histogram_quantile(0.99, rate(etcd_network_peer_round_trip_time_seconds_bucket[1m])) > bool 0.15",
    "memory": "process_resident_memory_bytes",
    "CPU": f"rate(process_cpu_seconds_total[{WINDOW}])",
    "open files": "process_open_fds",
    "files that may be open": "process_max_fds",
    "share of open files": "process_open_fds / process_max_fds",
}


def shapes(prometheus, start):
    """For each question, the labels of its answers and how many series there are, over a while."""
    return {what: shape(answers.over(prometheus, query, start)) for what, query in QUERIES.items()}


def shape(found):
    """The names of labels, and how many series."""
    series = {tuple(sorted(labels.items())) for labels, _ in found}
    return {name for labels in series for name, _ in labels}, len(series)
