"""Real faults: what Prometheus and Alertmanager deliver, and that they take it back once it is mended.

Each scenario is a cluster of its own, told apart by the label `cluster`; all of them share a Prometheus, an Alertmanager and
a webhook, and run side by side, a few at a time.
"""

import concurrent.futures
import errno
import json
import pathlib
import shutil
import subprocess
import threading
import time
import urllib.error

from lab import Alertmanager, Certificates, Cluster, Lab, Load, NotHere, Prometheus, Watcher, Webhook, targets_of, until

from . import rules
from .fakes import Collector, FakePeer, append_after, post_message

# A failure is visible within interval + time-out (1 s ± 10 %, 0.7 s). On top of that, what it takes to be scheduled and to
# scrape on a machine of two cores, by itself and beside a dozen other members.
VISIBLE, ALLOWANCE = 1.8, {"test": 1.2, "all": 3.0}
# Scenarios at a time: members that are so busy that they miss probes are unreachable in earnest.
AT_ONCE = 3
# For a delivery or its end: windows and `for` are 30 s at most here; the rest is patience with a loaded machine.
PATIENCE = 240


def run(report, tier, only=None):
    chosen = {name: scenario for name, (scenario, tiers) in SCENARIOS.items()
              if (name in only if only else tier in tiers)}
    if not chosen:
        return
    with Lab() as lab:
        worlds = {}
        for name, scenario in chosen.items():
            try:
                worlds[name] = scenario(lab, name)
            except NotHere as why:
                report.not_run(f"alerts of a live cluster: {name}", why)
        shortened = lab.path("rules.yaml")
        shortened.write_text(rules.shortened(rules.RULES.read_text()))
        webhook = Webhook(lab)
        alertmanager = Alertmanager(lab, webhook).start()
        scrapes = [targets_of("rafthttp", targets, labels={"cluster": cluster})
                   for world in worlds.values() for cluster, targets in world.targets().items()]
        for number, scrape in enumerate(scrapes):  # a job's name is unique; the label is not
            scrape.update(job_name=f"rafthttp-{number}", relabel_configs=[{"target_label": "job", "replacement": "rafthttp"}])
        prometheus = Prometheus(lab, scrapes, rules=[shortened], alertmanager=alertmanager).start()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
            for world in worlds.values():
                world.watched(report, prometheus, webhook)
            done = {name: threads.submit(world.run_and_end, tier) for name, world in worlds.items()}
            for name, future in done.items():
                report.check(f"{name}: ran to its end", future.result)
        delivered = {alert["labels"]["alertname"] for alert in webhook.delivered("firing")}
        broken = [rule for rule in prometheus.rules() if rule["health"] == "err"]
        report.check("every rule evaluates on live metrics", not broken, broken)
        if tier == "all" and not only:
            report.check("every alert was delivered", set(rules.names()) <= delivered, set(rules.names()) - delivered)


class Scenario:
    """A cluster, its faults, and the alerts that these must bring."""

    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self.cluster = self.build()

    def watched(self, report, prometheus, webhook):
        self.report, self.prometheus, self.webhook = report, prometheus, webhook

    def targets(self):
        """What is scraped, by the label `cluster`."""
        return {self.name: self.cluster.targets()}

    def ready(self):
        self.cluster.start()
        self.cluster.linked(180)
        self.scraped(len(self.cluster))

    def run_and_end(self, tier):
        try:
            self.run(tier)
        finally:
            for node in self.cluster:
                node.kill()

    def scraped(self, members):
        until(f"{self.name}: {members} members are scraped",
              lambda: len(self.prometheus.query(f'up{{cluster="{self.name}"}} == 1')) >= members, 180)

    def delivered(self, alert, **labels):
        """Waits for the alert at the webhook."""
        labels = {"cluster": self.name, "alertname": alert, **labels}

        def there():
            firing = self.webhook.delivered("firing", **labels)
            assert_description(firing)
            return firing
        self.report.check(f"{told(labels)} is delivered", lambda: self._told(there, f"{labels} fires"))

    def resolved(self, alert, since, **labels):
        """Waits, after `since`, until the webhook was last told of an end, and Prometheus has no such alert.

        The end may come before `since`: a scrape that this machine was too busy for ends an alert too.
        """
        labels = {"cluster": self.name, "alertname": alert, **labels}

        def there():
            last = {alert["fingerprint"]: alert["status"] for alert in self.webhook.delivered(**labels)}
            mended = time.time() >= since + 1
            return mended and last and set(last.values()) == {"resolved"} and not self.prometheus.alerts(**labels)
        self.report.check(f"{told(labels)} is resolved", lambda: self._told(there, f"{labels} is resolved"))

    def _told(self, there, what):
        try:
            until(what, there, PATIENCE, 0.2)
        except AssertionError as late:
            names = sorted({(alert["labels"]["alertname"], alert["state"]) for alert in self.prometheus.alerts(cluster=self.name)})
            raise AssertionError(f"{late}; Prometheus has {names}") from None


def told(labels):
    """An alert in words: which cluster's, which, and what tells it apart from others."""
    words = [value for name, value in labels.items() if name in ("way", "severity", "reason", "channel", "direction")]
    return f"{labels['cluster']}: {labels['alertname']}" + (f" ({', '.join(words)})" if words else "")


def assert_description(firing):
    for alert in firing:
        description = alert["annotations"]["description"]
        assert "<no value>" not in description and "<error" not in description, description


class Frozen(Scenario):
    """SIGSTOP of a follower under load; and, in the long run, of two of three members."""

    def build(self):
        cluster = Cluster(self.lab, 3, token=self.name, prefix=f"{self.name}-")
        self.watcher = Watcher(self.lab, cluster)
        return cluster

    def targets(self):
        return {**super().targets(), f"{self.name}-watched": [self.watcher.target]}

    def run(self, tier):
        self.allowance = ALLOWANCE[tier]
        self.ready()
        self.watcher.start()
        leader = self.cluster.leader()
        follower = self.cluster.follower()
        third, = (node for node in self.cluster if node not in (leader, follower))
        with Load([leader, third], rate=200) as load:
            until("writes", lambda: load.written > 100, 180)
            balance = Balance(self.cluster)
            self._visible(leader, follower, third, balance)
            self.delivered("RafthttpPeerUnreachable", peer=self.frozen)
            self.delivered("RafthttpQuorumAtRisk")
            for alert, labels in WATCHED.items():
                self.delivered(alert, cluster=f"{self.name}-watched", **labels(self.frozen))
            balance.look([leader, third])
            thawed = time.time()
            follower.thaw()
            self.resolved("RafthttpPeerUnreachable", thawed, peer=self.frozen)
            self.resolved("RafthttpQuorumAtRisk", thawed)
            for alert, labels in WATCHED.items():
                self.resolved(alert, thawed, cluster=f"{self.name}-watched", **labels(self.frozen))
        written = leader.status()["commit"]
        until("the follower has caught up", lambda: follower.status()["applied"] >= written, 180)
        balance.look(self.cluster)
        self.report.check(f"{self.name}: the ledger balances in every scrape, before, during and after", not balance.off, balance.off)
        if tier == "all":
            self._without_quorum()

    def _visible(self, leader, follower, third, balance):
        """From the freeze on: when the leader's metrics say so, and that they say nothing of the healthy peer."""
        self.frozen, healthy = follower.id, third.id
        before = [unconfirmed(leader.scrape(), self.frozen) for _ in every(0.1, 20)]
        level = max([0, *(value for value in before if value is not None)])
        follower.freeze()
        start, unreachable, behind, others = time.monotonic(), None, None, []
        while time.monotonic() < start + 2 * (VISIBLE + self.allowance) and not (unreachable and behind):
            scrape = leader.scrape()
            now = time.monotonic() - start
            balance.add(leader, scrape)
            if scrape.value("rafthttp_peer_reachable", peer=self.frozen) == 0:
                unreachable = unreachable or now
            if (unconfirmed(scrape, self.frozen) or 0) > 2 * level + 10:
                behind = behind or now
            others.append(unconfirmed(scrape, healthy) or 0)
            time.sleep(0.05)
        limit = VISIBLE + self.allowance
        self.report.note(f"{self.name}: unreachable after {unreachable} s, unconfirmed above {level} after {behind} s, "
                         f"of the healthy peer {max(others)} at most")
        self.report.check(f"{self.name}: reachable is 0 within {VISIBLE} s (and {self.allowance} s for this machine)",
                          unreachable is not None and unreachable <= limit, unreachable)
        self.report.check(f"{self.name}: unconfirmed is far above its healthy level as soon", behind is not None and behind <= limit, behind)
        self.report.check(f"{self.name}: unconfirmed stays near 0 for the healthy peer", max(others) <= 20, others)

    def _without_quorum(self):
        left, *gone = self.cluster
        for node in gone:
            node.freeze()
        self.delivered("RafthttpQuorumLost")
        self.delivered("RafthttpNoLeader", instance=left.target)
        thawed = time.time()
        for node in gone:
            node.thaw()
        self.resolved("RafthttpQuorumLost", thawed)
        self.resolved("RafthttpNoLeader", thawed, instance=left.target)


# What `rafthttp probe` sees of the frozen follower, from outside.
WATCHED = {"RafthttpPeerUnreachable": lambda peer: {"peer": peer}, "RafthttpQuorumAtRisk": lambda _: {}}


class Links(Scenario):
    """A direction that cannot be dialled, a slow path, and one that is cut again and again."""

    def build(self):
        return Cluster(self.lab, 3, relays=True, token=self.name, prefix=f"{self.name}-")

    def run(self, _tier):
        self.ready()
        first, second, third = self.cluster
        deaf, dumb, far = first.id, second.id, third.id
        second.relay.refuse(second.relay.sent_by(deaf))
        third.relay.delay(0.2)
        self.delivered("RafthttpOneWayLink", instance=first.target, peer=dumb, way="in")
        self.delivered("RafthttpOneWayLink", instance=second.target, peer=deaf, way="out")
        self.delivered("RafthttpRoundTripSlow", instance=second.target, peer=far)
        healed = time.time()
        second.relay.heal()
        third.relay.heal()
        self.resolved("RafthttpOneWayLink", healed, instance=first.target, peer=dumb, way="in")
        self.resolved("RafthttpOneWayLink", healed, instance=second.target, peer=deaf, way="out")
        self.resolved("RafthttpRoundTripSlow", healed, instance=second.target, peer=far)

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not self.webhook.delivered("firing", alertname="RafthttpLinkFlapping", cluster=self.name, peer=deaf):
            first.relay.cut()
            time.sleep(2)
        steady = time.time()
        self.delivered("RafthttpLinkFlapping", peer=deaf)
        self.resolved("RafthttpLinkFlapping", steady, peer=deaf)


class Deaf(Scenario):
    """A peer that answers probes, and gets appends late; then one without a stream, whose requests are slow."""

    def build(self):
        return Cluster(self.lab, 3, relays=True, token=self.name, prefix=f"{self.name}-")

    def run(self, _tier):
        self.ready()
        leader, follower = self.cluster.leader(), self.cluster.follower()
        others, deaf = [node for node in self.cluster if node is not follower], follower.id
        with Load(others, rate=100):
            appends_to_deaf = both(is_stream(b"msgapp"), leader.relay.sent_by(deaf))
            for node in others:
                node.relay.narrow(200, appends_to_deaf)
            self.delivered("RafthttpMessagesUnconfirmed", peer=deaf, channel="msgapp")
            healed = time.time()
            for node in others:
                node.relay.heal()
            self.resolved("RafthttpMessagesUnconfirmed", healed, peer=deaf, channel="msgapp")

            for node in others:
                node.relay.refuse(both(node.relay.stream, node.relay.sent_by(deaf)))
            follower.relay.delay(1.0, lambda head: head.startswith(b"POST /raft "))
            self.delivered("RafthttpQueueNearFull", peer=deaf, channel="pipeline")
            self.delivered("RafthttpMessagesDropped", peer=deaf, reason="queue_full")
            healed = time.time()
            for node in self.cluster:
                node.relay.heal()
            self.resolved("RafthttpQueueNearFull", healed, peer=deaf, channel="pipeline")
            self.resolved("RafthttpMessagesDropped", healed, peer=deaf, reason="queue_full")


class Snapshots(Scenario):
    """A follower that needs a snapshot: its answer gets lost, then it cannot be sent at all."""

    def build(self):
        return Cluster(self.lab, 3, relays=True, token=self.name, prefix=f"{self.name}-", extra=["--snapshot-count", "50", "--log-retention-bytes", "0"])

    def run(self, _tier):
        self.ready()
        self.cluster.leader()
        follower = self.cluster.follower()
        peer = follower.id
        follower.kill()
        self._write(follower)
        follower.relay.mute(is_snapshot)
        follower.start()
        self.delivered("RafthttpSnapshotStuck", peer=peer, direction="out")
        healed = time.time()
        follower.relay.heal()
        self.resolved("RafthttpSnapshotStuck", healed, peer=peer, direction="out")

        follower.kill()
        self._write(follower)
        follower.relay.refuse(is_snapshot)
        follower.start()
        self.delivered("RafthttpSnapshotFailing", peer=peer, direction="out")
        healed = time.time()
        follower.relay.heal()
        self.resolved("RafthttpSnapshotFailing", healed, peer=peer, direction="out")
        leader = self.cluster.leader()
        until("the follower has caught up", lambda: follower.status()["applied"] >= leader.status()["commit"] - 5, 180)

    def _write(self, without):
        with Load([node for node in self.cluster if node is not without], rate=400) as load:
            until("enough for a snapshot", lambda: load.written >= 300, 240)


class Slow(Scenario):
    """A follower whose snapshot may only go at 2 KiB a second: it moves, and would take more than an hour."""

    RATE, VALUES, VALUE = "2KiB", 40, b"x" * 300_000

    def build(self):
        keep_nothing = ["--snapshot-count", "20", "--log-retention-bytes", "0", "--snapshot-rate", self.RATE]
        return Cluster(self.lab, 3, token=self.name, prefix=f"{self.name}-", extra=keep_nothing)

    def run(self, _tier):
        self.ready()
        self.cluster.leader()
        follower = self.cluster.follower()
        peer = follower.id
        others = [node for node in self.cluster if node is not follower]
        follower.kill()
        for number in range(self.VALUES):
            until("it is written", lambda: self._is_written(others[number % 2], f"key{number}"), 60)
        follower.start()
        self.delivered("RafthttpSnapshotSlow", peer=peer, direction="out")
        stuck = self.prometheus.alerts(cluster=self.name, alertname="RafthttpSnapshotStuck")
        self.report.check(f"{self.name}: it is not called stuck", not stuck, stuck)
        # The flag counts from the next start on.
        healed = time.time()
        for node in self.cluster:
            node.stop()
            rate = node.process.arguments.index("--snapshot-rate") + 1
            node.process.arguments[rate] = "0"
        for node in self.cluster:
            node.start()
        leader = self.cluster.leader()
        until("the follower has caught up", lambda: follower.status()["applied"] >= leader.status()["commit"] - 5, 180)
        self.resolved("RafthttpSnapshotSlow", healed, peer=peer, direction="out")

    def _is_written(self, node, key):
        try:
            node.put(key, self.VALUE)
        except OSError:  # no leader yet
            return False
        return True


class Overtaken(Scenario):
    """A follower whose snapshots take longer than the log waits."""

    def build(self):
        keep_nothing = ["--snapshot-count", "20", "--log-retention-bytes", "0", "--log-retention-max-bytes", "0"]
        return Cluster(self.lab, 3, relays=True, token=self.name, prefix=f"{self.name}-", extra=keep_nothing)

    def run(self, _tier):
        self.ready()
        self.cluster.leader()
        follower = self.cluster.follower()
        others = [node for node in self.cluster if node is not follower]
        follower.kill()
        with Load(others, rate=200) as load:
            until("enough for a snapshot", lambda: load.written >= 300, 240)
            follower.relay.delay(1.0, is_snapshot)
            follower.start()
            self.delivered("RafthttpSnapshotOvertaken", instance=self.cluster.leader().target)
        healed = time.time()
        follower.relay.heal()
        leader = self.cluster.leader()
        until("the follower has caught up", lambda: follower.status()["applied"] >= leader.status()["commit"] - 5, 180)
        self.resolved("RafthttpSnapshotOvertaken", healed, instance=leader.target)


class Foreign(Scenario):
    """One peer of another cluster, and a false one: of another version, with a wrong clock, whose messages make no sense."""

    def build(self):
        cluster = Cluster(self.lab, 2, token=self.name, prefix=f"{self.name}-")
        self.fake = FakePeer(self.lab, clock=5.0, version="incompatible")
        for node in cluster:
            place = node.process.arguments.index("--initial-cluster") + 1
            node.process.arguments[place] += f",{self.name}-fake={self.fake.url}"
        return cluster

    def run(self, _tier):
        ours, theirs = self.cluster
        token = theirs.process.arguments.index("--initial-cluster-token") + 1
        theirs.process.arguments[token] = "another"
        self.cluster.start()
        self.scraped(2)
        known = until("its peers", lambda: ours.peers(), 180)
        ids = {url: peer["id"] for peer in known["peers"] for url in peer["urls"]}
        other, fake = ids[theirs.peer], ids[self.fake.url]
        nonsense = self.lab.owns(Every(0.3, lambda: post_message(ours.listen, known["cluster"], known["local"], fake)))
        self.delivered("RafthttpClusterMismatch", instance=ours.target, peer=other, result="cluster_id_mismatch")
        self.delivered("RafthttpVersionMismatch", instance=ours.target, peer=fake)
        self.delivered("RafthttpClockOffset", instance=ours.target, peer=fake)
        self.delivered("RafthttpMessagesRejected", instance=ours.target, peer=fake, reason="refused")

        mended = time.time()
        nonsense.close()
        self.fake.clock, self.fake.version = 0.0, "right"
        theirs.stop()
        theirs.process.arguments[token] = self.name
        data = theirs.process.arguments.index("--data-dir") + 1
        theirs.process.arguments[data] = self.lab.path(f"{theirs.name}.again")
        theirs.start()
        self.resolved("RafthttpClusterMismatch", mended, instance=ours.target, peer=other)
        self.resolved("RafthttpVersionMismatch", mended, instance=ours.target, peer=fake)
        self.resolved("RafthttpClockOffset", mended, instance=ours.target, peer=fake)
        self.resolved("RafthttpMessagesRejected", mended, instance=ours.target, peer=fake)


class Store(Scenario):
    """Data near a quota and over it, and a disk that is full."""

    QUOTA, VALUE = 100_000, b"x" * 1000

    def build(self):
        why_not = own_file_system_is_not_here()
        if why_not:
            raise NotHere(why_not)
        cluster = Cluster(self.lab, 3, token=self.name, prefix=f"{self.name}-", extra=["--quota-backend-bytes", str(self.QUOTA)])
        self.small = cluster[2]
        self.directory = self.lab.path(f"{self.small.name}.data")
        self.small.process.arguments = in_a_file_system_of(64 << 20, self.directory, self.small.process.arguments)
        return cluster

    def run(self, _tier):
        self.ready()
        self.cluster.leader()
        for number in range(90):
            self.cluster[0].put(f"k{number}", self.VALUE)
        self.delivered("RafthttpNoSpace", severity="warning")
        refused = until("puts are refused", lambda: next((code for code in map(self._put, range(90, 150)) if code != 204), None), 60)
        self.report.check(f"{self.name}: a put is refused with 507", refused == 507, refused)
        self.delivered("RafthttpNoSpace", severity="critical")
        deleted = time.time()
        for number in range(90):
            self.cluster[1].ask("DELETE", f"/kv/k{number}")
        until("puts are taken again", lambda: self._put(0) == 204, 60)
        self.resolved("RafthttpNoSpace", deleted)

        filler = pathlib.Path(f"/proc/{self.small.process.pid}/root{self.directory}/filler")
        fill(filler)
        full = Every(0.1, lambda: self.cluster[0].put("same", self.VALUE))
        self.delivered("RafthttpDiskFailing", instance=self.small.target)
        full.close()
        room = time.time()
        filler.unlink()
        self.resolved("RafthttpDiskFailing", room, instance=self.small.target)

    def _put(self, number):
        try:
            self.cluster[0].put(f"k{number}", self.VALUE)
            return 204
        except urllib.error.HTTPError as refused:
            return refused.code


class Histories(Scenario):
    """A member that contradicts what a follower has committed, as one whose disk was put back would."""

    def build(self):
        self.fake = FakePeer(self.lab, clock=0.0, version="right")
        return Cluster(self.lab, 3, token=self.name, prefix=f"{self.name}-")

    def run(self, _tier):
        self.ready()
        leader, victim = self.cluster.leader(), self.cluster.follower()
        leader.put("key", "acknowledged")
        body = json.dumps({"peerURLs": [self.fake.url], "isLearner": True}).encode()
        until("the false one is a member", lambda: self._taken(leader, body), 90)
        ids = until("its peers", lambda: {url: peer["id"] for peer in victim.peers()["peers"] for url in peer["urls"]}, 90)
        fake = until("the false one is a peer", lambda: ids.get(self.fake.url) or next(
            (peer["id"] for peer in victim.peers()["peers"] if self.fake.url in peer["urls"]), None), 90)
        until("the write is there", lambda: victim.status()["commit"] >= leader.status()["applied"] > 0, 90)
        status = victim.status()
        told = append_after(status["id"], fake, status["term"] + 5, status["commit"])
        self.fake.tells[status["id"]] = (status["cluster"], told)
        self.delivered("RafthttpTwoHistories", instance=victim.target)
        ready = unready(victim)
        self.report.check(f"{self.name}: /readyz says so in words", f"two histories: in what leader {fake} sends" in ready, ready)
        leader.put("key", "of the two others")

        mended = time.time()
        # It says that it has no leader, so not all agree who leads.
        until("it is removed", lambda: self._taken(leader, None, "DELETE", f"/members/{status['id']}"), 90)
        victim.kill()
        self.resolved("RafthttpTwoHistories", mended, instance=victim.target)

    @staticmethod
    def _taken(leader, body, method="POST", path="/members"):
        try:
            leader.ask(method, path, body)
            return True
        except urllib.error.HTTPError as refused:
            assert refused.code in (409, 503, 504), refused
            return False


class Process(Scenario):
    """A certificate that ends soon, and a trace collector that is away."""

    def build(self):
        self.certificates = Certificates(self.lab, days=1)
        self.collector = Collector(self.lab)
        return Cluster(
            self.lab, 2, tls=self.certificates, token=self.name, prefix=f"{self.name}-", extra=["--trace-ratio", "1"],
            environment={"OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                         "OTEL_BSP_SCHEDULE_DELAY": "500"})

    def run(self, _tier):
        self.ready()
        with Load(self.cluster, rate=20):
            self.delivered("RafthttpCertificateExpiring", severity="critical")
            renewed = time.time()
            self.certificates.renew(3)
            self.resolved("RafthttpCertificateExpiring", renewed, severity="critical")
            self.delivered("RafthttpCertificateExpiring", severity="warning")
            renewed = time.time()
            self.certificates.renew(365)
            self.resolved("RafthttpCertificateExpiring", renewed, severity="warning")

            self.delivered("RafthttpTraceExportFailing")
            back = time.time()
            self.collector.start()
            self.resolved("RafthttpTraceExportFailing", back)


class Restored(Scenario):
    """A member that is started on a backup of before its last start; then it is removed, as its last words say."""

    def build(self):
        return Cluster(self.lab, 3, token=self.name, prefix=f"{self.name}-")

    def run(self, _tier):
        self.ready()
        node = self.cluster.follower()
        others, gone = [other for other in self.cluster if other is not node], node.id
        data, backup = (self.lab.path(f"{node.name}.{what}") for what in ("data", "backup"))
        node.stop()
        shutil.copytree(data, backup)
        node.start()
        for other in others:
            until(f"{other.name} has met its second start", lambda other=other: "-2-" in incarnation(other, gone).get("told", ""), 180)
        node.kill()
        shutil.rmtree(data)
        shutil.copytree(backup, data)
        node.start()
        for other in others:
            self.delivered("RafthttpMemberRefused", instance=other.target, peer=gone)
        until("it ends", lambda: not node.process.runs(), 60)
        status = node.stop()
        self.report.check(f"{self.name}: the member ends with a status of its own", status == 4, status)

        removed = time.time()
        until("it is removed", lambda: removes(others[0], gone), 90)
        for other in others:
            self.resolved("RafthttpMemberRefused", removed, instance=other.target, peer=gone)


SCENARIOS = {
    "frozen": (Frozen, ("test", "all")),
    "links": (Links, ("all",)),
    "deaf": (Deaf, ("all",)),
    "snapshots": (Snapshots, ("all",)),
    "foreign": (Foreign, ("all",)),
    "store": (Store, ("all",)),
    "histories": (Histories, ("all",)),
    "overtaken": (Overtaken, ("all",)),
    "slow": (Slow, ("all",)),
    "process": (Process, ("all",)),
    "restored": (Restored, ("all",)),
}


class Balance:
    """Whether offered = sent + dropped + queued, in every scrape that was looked at."""

    def __init__(self, cluster):
        self.off = []
        self.look(cluster)

    def look(self, nodes):
        for node in nodes:
            self.add(node, node.scrape())

    def add(self, node, scrape):
        for labels, _ in scrape.all("rafthttp_peer_active"):
            peer = labels["peer"]
            offered, sent, dropped, queued = (scrape.sum(f"rafthttp_messages_{what}", peer=peer)
                                              for what in ("offered_total", "sent_total", "dropped_total", "queued"))
            if offered != sent + dropped + queued:
                self.off.append(f"{node.name} to {peer}: {offered} != {sent} + {dropped} + {queued}")


def own_file_system_is_not_here():
    """Why no process can have a file system of its own, or nothing."""
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else None


def in_a_file_system_of(size, directory, command):
    """The command in a namespace where the directory is a file system of so many bytes, gone with the process."""
    pathlib.Path(directory).mkdir(exist_ok=True)
    mount = 'mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh", str(size), str(directory), *command]


def fill(path):
    """Makes a file of all the room that is left."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 << 10))
        except OSError as full:
            assert full.errno == errno.ENOSPC, full


def unready(node):
    """What a member's /readyz says that is not ready."""
    try:
        node.ask("GET", "/readyz?verbose", of=node.metrics)
    except urllib.error.HTTPError as refused:
        return refused.read().decode()
    return "it is ready"


class Every:
    """Does something again and again, in a thread, until it is closed."""

    def __init__(self, seconds, do):
        self._stop = threading.Event()

        def loop():
            while not self._stop.wait(seconds):
                try:
                    do()
                except OSError:
                    pass
        self._thread = threading.Thread(target=loop, daemon=True)
        self._thread.start()

    def close(self):
        self._stop.set()
        self._thread.join(10)


def every(seconds, times):
    for number in range(times):
        yield number
        time.sleep(seconds)


def incarnation(node, peer):
    """What a member knows of a peer's incarnation."""
    return next((found["incarnation"] for found in node.peers()["peers"] if found["id"] == peer), {})


def removes(node, member):
    try:
        node.ask("DELETE", f"/members/{member}")
    except OSError:
        return False
    return True


def unconfirmed(scrape, peer):
    """Of both streams to the peer; None while it is not known."""
    values = [value for _, value in scrape.all("rafthttp_messages_unconfirmed", peer=peer)]
    return sum(values) if values else None


def is_stream(kind):
    return lambda head: head.startswith(b"GET /raft/stream/" + kind + b"/")


def is_snapshot(head):
    return head.startswith(b"POST /raft/snapshot ")


def both(one, other):
    return lambda head: one(head) and other(head)
