"""etcd's names: its own families beside ours, its dashboard's queries on both, and our dashboard for it on it."""

import http.client
import time
import urllib.parse

import answers
import board
import etcd
import exposition
import published
from checks import TIER_IS_ALL, not_run
from lab import Cluster, Lab, Load, NotHere, Prometheus, Relay, until

# What etcd's metrics cannot have without a fault that is not made here.
HEALTHY = {}


def run(check):
    with Lab() as lab:
        ours = Cluster(lab).start()
        ours.leader()
        start = time.time()
        prometheus = Prometheus(lab, ours.targets(), name="ours").start().up(3)
        with Load(ours.linked(), rate=50):
            texts = [node.ask("GET", "/metrics", of=node.metrics).decode() for node in ours]
            declared = {prefix: exposition.families(*texts, prefix=prefix) for prefix in ("etcd_network_", "etcd_server_")}
            check.equal("etcd's names of the network that we have", len(declared["etcd_network_"]), 15)
            check.equal("etcd's names of raft that we have", len(declared["etcd_server_"]), 7)
            until("a while of scrapes", lambda: prometheus.query(f"min(timestamp(etcd_server_has_leader)) > {start + 10}"))
            shapes = published.shapes(prometheus, start)
            versions = etcd.VERSIONS if TIER_IS_ALL else ("3.4",)
            for version in versions:
                try:
                    beside(check, lab, version, declared, shapes)
                except NotHere as missing:
                    not_run(f"beside etcd {version}", missing)


def beside(check, lab, version, declared, shapes):
    """One version of etcd: every one of its 15 families is made to appear."""
    cluster = etcd.EtcdCluster(lab, version).start()
    start = time.time()
    prometheus = Prometheus(lab, cluster.targets(), name=f"etcd-{version}").start().up(3)
    follower = cluster.follower()
    others = [member for member in cluster.members if member is not follower]
    with etcd.Writes(others, writers=3, pause=0.05):
        until("a few scrapes", lambda: prometheus.query(f"min(timestamp(etcd_server_has_leader)) > {start + 5}"))
        fall_behind(cluster, follower, others)
        fail(follower)
        texts = until("a snapshot arrives", lambda: with_snapshots(cluster), 120)
        known = time.time()
        until("a few scrapes more", lambda: prometheus.query(f"min(timestamp(etcd_server_has_leader)) > {known + 4}"))
        # etcd observes a round trip of a healthy peer each 30 s: two are needed for a rate.
        observed = published.QUERIES["round trip between members, each"]
        until("round trips of every pair", lambda: published.shape(answers.over(prometheus, observed, start))[1] == 6, 100, pause=1)
        theirs = published.shapes(prometheus, start)
    for prefix, ours in declared.items():
        found = exposition.families(*texts, prefix=prefix)
        for name, family in sorted(ours.items()):
            check.equal(f"{name} as in etcd {version}", family, found.get(name))
    network = set(exposition.families(*texts, prefix="etcd_network_")) - set(declared["etcd_network_"])
    # Of its clients, not of its peers.
    network -= {"etcd_network_client_grpc_sent_bytes_total", "etcd_network_client_grpc_received_bytes_total",
                "etcd_network_known_peers", "etcd_network_server_stream_failures_total"}
    check(f"etcd {version} has no name of the network between peers that we lack", not network, network)
    for what, shape in shapes.items():
        check.equal(f"{what}: as on etcd {version}", shape, theirs[what])
    dashboard = board.load("etcd-peers")
    answers.all_answered(check, prometheus, dashboard, start, HEALTHY, label=f" on etcd {version}")
    answers.variables_filled(check, prometheus, dashboard)
    for member in cluster.members:
        member.process.stop()


def fall_behind(cluster, follower, others):
    """A follower misses more than is kept, and its first snapshots are refused on their way."""
    before = int(others[0].status()["raftIndex"])
    follower.process.kill()
    missed = etcd.KEPT.get(cluster.version, 0) + 500
    with etcd.Writes(others):
        until(f"{missed} entries more", lambda: int(others[0].status()["raftIndex"]) > before + missed, 300)
    # All but streams: a snapshot may take the connection of a probe.
    follower.relay.refuse(lambda head: not Relay.stream(head))
    follower.process.start()
    until("a snapshot failed", lambda: any("etcd_network_snapshot_send_failures{" in member.metrics() for member in others), 120)
    follower.relay.heal()


def fail(follower):
    """What arrives at the follower as a message is none, and what arrives as a snapshot."""
    follower.process.until_ready(lambda: int(follower.status().get("leader", 0)))
    address = urllib.parse.urlsplit(follower.listen)
    cluster = int(follower.status()["header"]["cluster_id"])
    for path, kind in (("/raft", "application/protobuf"), ("/raft/snapshot", "application/octet-stream")):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
        connection.request("POST", path, body=b"\0" * 8 + b"junk", headers={
            "X-Etcd-Cluster-ID": f"{cluster:x}", "X-Server-From": "7", "X-Server-Version": "3.4.0",
            "X-Min-Cluster-Version": "3.0.0", "Content-Type": kind,
        })
        assert connection.getresponse().status == 400, path
        connection.close()


def with_snapshots(cluster):
    """Every member's metrics, once a snapshot has been received."""
    texts = [member.metrics() for member in cluster.members]
    return texts if any("etcd_network_snapshot_receive_success{" in text for text in texts) else None
