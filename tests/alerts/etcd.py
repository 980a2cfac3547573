"""etcd's own alerts on a real etcd cluster and on ours: the same faults, the same alerts.

Its job selector (`job=~".*etcd.*"`) and expressions are taken as they are, with every duration divided as for our own rules.
"""

import threading
import time

from lab import Cluster, Lab, NotHere, Prometheus, repository, targets_of, until
from lab.etcd import EtcdCluster

from . import rules

ETCD, OURS = "etcd", "etcd-by-rafthttp"
VERSIONS = ("3.6", "3.4")
PATIENCE = 240
# A machine that is busy makes round trips slow in earnest; etcd, which observes one each 30 s, does not say so that fast.
BUSY = {("etcdMemberCommunicationSlow", OURS)}


def run(report):
    with Lab() as lab:
        etcd = _etcd(lab, report)
        if etcd is None:
            return
        ours = Cluster(lab, 3, relays=True, token="etcd", prefix="ours-")
        shortened = lab.path("etcd-alerts.yaml")
        shortened.write_text(rules.shortened((repository / "tests/alerts/etcd-alerts.yaml").read_text()))
        prometheus = Prometheus(lab, [targets_of(ETCD, etcd.targets()), targets_of(OURS, ours.targets())],
                                rules=[shortened], name="etcd-prometheus").start()
        report.check("etcd's alerts: ran to their end", lambda: Sides(report, prometheus, etcd, ours).run())
        broken = [rule for rule in prometheus.rules() if rule["health"] == "err"]
        report.check("etcd's alerts: every one evaluates", not broken, broken)


def _etcd(lab, report):
    for version in VERSIONS:
        try:
            cluster = EtcdCluster(lab, version)
        except NotHere as why:
            last = why
            continue
        report.note(f"etcd's alerts: beside etcd {version}")
        return cluster
    report.not_run("etcd's alerts on etcd and on us", last)
    return None


class Sides:
    """Both clusters, and what befalls both of them."""

    def __init__(self, report, prometheus, etcd, ours):
        self.report, self.prometheus, self.sides = report, prometheus, {ETCD: etcd, OURS: ours}

    def run(self):
        for cluster in self.sides.values():
            cluster.start()
        self._both(lambda cluster: cluster.leader(180))
        self.prometheus.up(6, 180)
        self._samples("etcd_server_has_leader", "etcd_server_leader_changes_seen_total", "etcd_server_proposals_failed_total",
                      "etcd_network_peer_round_trip_time_seconds_bucket")
        seen = self._ever(10)
        self.report.check("etcd's alerts: none fires on two clusters that are well", not seen, seen)
        self._members_down()
        self._leader_changes()
        self._slow()

    def _samples(self, *names):
        """Each name that the alerts ask for has samples on both sides."""
        for name in names:
            for side in self.sides:
                self.report.check(f"etcd's alerts: {name} has samples of {side}",
                                  lambda: until(name, lambda: self.prometheus.query(f'{name}{{job="{side}"}}'), 60))

    def _members_down(self):
        survivors, gone = {}, {}
        for side, cluster in self.sides.items():
            leader = cluster.leader()
            first, second = (node for node in cluster if node is not leader)
            survivors[side], gone[side] = leader, (first, second)
            first.kill()
        self._fires("etcdMembersDown")
        self._samples("etcd_network_peer_sent_failures_total")
        others = {(name, side) for name, side in self._firing() if name != "etcdMembersDown"} - BUSY
        self.report.check("etcd's alerts: with one of three down, no other fires", not others, others)
        for _, second in gone.values():
            second.kill()
        with Clients(survivors.values(), 60):
            self._fires("etcdInsufficientMembers")
            self._fires("etcdNoLeader")
            self._fires("etcdHighNumberOfFailedProposals")
        for nodes in gone.values():
            for node in nodes:
                node.start()
        self._ends("etcdMembersDown", "etcdInsufficientMembers", "etcdNoLeader", "etcdHighNumberOfFailedProposals")

    def _leader_changes(self):
        stop = threading.Event()

        def depose(cluster):
            while not stop.is_set():
                leader = cluster.leader(180)
                leader.freeze()
                try:
                    until("another leader", lambda: any(_leads(node) for node in cluster if node is not leader), 30)
                finally:
                    leader.thaw()
        deposing = [threading.Thread(target=depose, args=(cluster,), daemon=True) for cluster in self.sides.values()]
        for thread in deposing:
            thread.start()
        self._fires("etcdHighNumberOfLeaderChanges")
        stop.set()
        for thread in deposing:
            thread.join(60)
        self._ends("etcdHighNumberOfLeaderChanges")

    def _slow(self):
        """On ours alone: etcd observes a round trip each 30 s and smooths it, which is longer than the shortened windows."""
        ours = self.sides[OURS]
        ours[2].relay.delay(0.2)
        self._fires("etcdMemberCommunicationSlow", [OURS])
        ours[2].relay.heal()
        self._ends("etcdMemberCommunicationSlow")

    def _both(self, do):
        for cluster in self.sides.values():
            do(cluster)

    def _firing(self):
        return {(alert["labels"]["alertname"], alert["labels"]["job"]) for alert in self.prometheus.alerts() if alert["state"] == "firing"}

    def _ever(self, seconds):
        seen, end = set(), time.monotonic() + seconds
        while time.monotonic() < end:
            seen |= self._firing() - BUSY
            time.sleep(0.5)
        return seen

    def _fires(self, alert, sides=None):
        for side in sides or self.sides:
            self.report.check(f"etcd's alerts: {alert} fires on {side}",
                              lambda: until(f"{alert} on {side}", lambda: (alert, side) in self._firing(), PATIENCE, 0.3))

    def _ends(self, *alerts):
        for alert in alerts:
            self.report.check(f"etcd's alerts: {alert} ends", lambda: until(
                f"the end of {alert}", lambda: alert not in {name for name, _ in self._firing()}, PATIENCE, 0.3))


class Clients:
    """So many writers at each of the nodes, that go on whatever happens. A context manager."""

    def __init__(self, nodes, each):
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(node,), daemon=True) for node in nodes for _ in range(each)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def _write(self, node):
        while not self._stop.is_set():
            try:
                node.put("key", "value", seconds=10)
            except OSError:
                self._stop.wait(0.1)


def _leads(node):
    try:
        return node.scrape().value("etcd_server_is_leader") == 1
    except OSError:
        return False
