"""Mode node: a cluster of members."""

from lab import until

from .api import name_of, serves
from .release import Release
from .stages import FAILS

MEMBERS = "store-rafthttp"


class NodeMode:
    """One release, through what an operator does with it. The checks build on each other, in order."""

    def __init__(self, report, cluster, place):
        self._report, self._cluster, self._place = report, cluster, place
        self._release = Release(cluster, "store", f"node-{cluster.major}")

    def run(self):
        self._cluster.namespace(self._release.namespace)
        self._before = self._cluster.everything()
        for what, step in [
            ("install --wait: three members, their volumes, a budget of one", self._install),
            ("helm test: its pod is taken, and leaves nothing", self._test),
            ("upgrade: every member anew, one at a time", self._upgrade),
            ("rollback: as it was, one at a time", self._rollback),
            ("scale up: two more, and no other member touched", self._up),
            ("a shrink that fails: the upgrade fails, and nothing has changed", self._shrink_fails),
            ("scale down: the hook's Job has ended before a member goes, and their volumes go too", self._down),
            ("rollback to more members and to fewer: the hook runs there as well", self._rollback_of_scale),
            ("no warning among the events but of the shrink that failed", self._no_warnings),
            ("drain: held back while one more would cost the quorum, and let go on after", self._held_back),
            ("uninstall: nothing is left but the members' volumes", self._uninstall),
            ("drain of a node that has every member: one at a time", self._one_at_a_time),
            ("uninstall with whenDeleted=Delete: nothing is left", self._uninstall_all),
        ]:
            self._report.check(f"{self._place}: node: {what}", step)
        self._cluster.remove_namespace(self._release.namespace)

    def _install(self):
        self._release.install()
        self._are_ready(3)
        assert self._release.claims() == [f"data-{MEMBERS}-{number}" for number in range(3)], self._release.claims()
        self._until_budget(1)
        for service in (MEMBERS, f"{MEMBERS}-peers", f"{MEMBERS}-metrics"):
            until(f"service {service} has every member", lambda name=service: self._addresses(name) == 3)

    def _test(self):
        self._release.test()
        assert not self._release.pods("test")

    def _upgrade(self):
        self._rolls(lambda: self._release.upgrade("--set", "node.snapshotCount=5000"), "5000")

    def _rollback(self):
        self._rolls(lambda: self._release.rollback(1), "10000")

    def _rolls(self, act, snapshot_count):
        before, history = self._uids(), self._cluster.api.history(self._release.path("pods"))
        act()
        self._are_ready(3)
        assert not set(before.values()) & set(self._uids().values()), "a member was not replaced"
        for pod in self._members().values():
            variables = pod["spec"]["containers"][0]["env"]
            assert {"name": "RAFTHTTP_SNAPSHOT_COUNT", "value": snapshot_count} in variables, variables
        fewest = history.fewest(_member_serves)
        assert fewest == 2, f"{fewest} of 3 served at one time"

    def _up(self):
        before = self._uids()
        self._scaled(5, lambda: self._release.upgrade("--set", "replicaCount=5"))
        assert before.items() <= self._uids().items(), "a member that stays was replaced"
        self._until_budget(2)

    def _shrink_fails(self):
        before, uids = self._statefulset(), self._uids()
        fails = ",".join(f"commonLabels.{name}={value}" for name, value in FAILS.items())
        self._release.upgrade("--set", f"replicaCount=3,{fails}", fails=True)
        assert self._statefulset()["spec"] == before["spec"] and self._uids() == uids

    def _down(self):
        before = self._uids()
        self._scaled(3, lambda: self._release.upgrade("--set", "replicaCount=3"))
        assert self._uids().items() <= before.items(), "a member that stays was replaced"
        self._until_budget(1)

    def _rollback_of_scale(self):
        fewer = self._release.revision()
        self._release.upgrade("--set", "replicaCount=5")
        more = self._release.revision()
        self._scaled(3, lambda: self._release.rollback(fewer))
        self._scaled(5, lambda: self._release.rollback(more))
        self._scaled(3, lambda: self._release.rollback(fewer))

    def _scaled(self, count, act):
        """Scales, and holds it against what the API server saw: the Job ended well before the StatefulSet changed."""
        sets, jobs = (self._cluster.api.history(path) for path in (
            self._release.apps("statefulsets"), self._release.path("jobs", group="/apis/batch/v1")))
        act()
        self._are_ready(count)
        until("the volumes are as many", lambda: len(self._release.claims()) == count)
        changed = min(_version(item) for _, item in sets.changes() if item["spec"]["replicas"] == count)
        ended = [_version(item) for _, item in jobs.changes() if item.get("status", {}).get("succeeded")]
        assert ended, "no hook ran"
        assert min(ended) < changed, "the StatefulSet changed before the hook had ended"
        asked = {argument for _, item in jobs.changes() for argument in _arguments(item) if argument.startswith("--to=")}
        assert asked == {f"--to={count}"}, asked
        left = self._cluster.api.items(self._release.path("jobs", group="/apis/batch/v1"))
        assert not left, f"{name_of(left[0])} is left"

    def _no_warnings(self):
        warnings = self._cluster.warnings(self._release.namespace)
        assert set(warnings) == {f"BackoffLimitExceeded Job {MEMBERS}-shrink"}, warnings

    def _held_back(self):
        kubectl, pods = self._cluster.kubectl, self._members()
        first, second = (pods[f"{MEMBERS}-{number}"]["spec"]["nodeName"] for number in (0, 1))
        assert first != second, "two members on one node, with others free"
        nodes = [name_of(node) for node in self._cluster.api.items("/api/v1/nodes")]
        try:
            kubectl.run("cordon", *nodes)
            kubectl.run("drain", first, "--timeout=60s")
            self._until_budget(0)
            said = kubectl.run("drain", second, "--timeout=12s", fails=True)
            assert "disruption budget" in said, said
            assert self._uids()[f"{MEMBERS}-1"] == pods[f"{MEMBERS}-1"]["metadata"]["uid"], "the second member went"
            kubectl.run("uncordon", *(node for node in nodes if node not in (first, second)))
            self._are_ready(3)
            kubectl.run("drain", second, "--timeout=60s")
            self._are_ready(3)
        finally:
            kubectl.run("uncordon", *nodes)

    def _uninstall(self):
        self._release.uninstall()
        wanted = [f"data-{MEMBERS}-{number}" for number in range(3)]
        assert self._release.claims() == wanted, self._release.claims()
        self._cluster.kubectl.run("delete", "persistentvolumeclaims", "--all", "--namespace", self._release.namespace)
        self._cluster.until_as_before(self._before)

    def _one_at_a_time(self):
        """From a new release, which finds one node alone free: nothing but the drain has taken a member away."""
        kubectl, nodes = self._cluster.kubectl, [name_of(node) for node in self._cluster.api.items("/api/v1/nodes")]
        crowded = nodes[0]
        try:
            kubectl.run("cordon", *nodes[1:])
            self._release.install("--set", "node.persistence.retention.whenDeleted=Delete")
            self._are_ready(3)
            assert {pod["spec"]["nodeName"] for pod in self._members().values()} == {crowded}
            kubectl.run("uncordon", *nodes)
            self._until_budget(1)
            history = self._cluster.api.history(self._release.path("pods"))
            kubectl.run("drain", crowded, "--timeout=180s")
            self._are_ready(3)
            assert crowded not in {pod["spec"]["nodeName"] for pod in self._members().values()}
            fewest = history.fewest(_member_serves)
            assert fewest == 2, f"{fewest} of 3 served at one time"
        finally:
            kubectl.run("uncordon", *nodes)

    def _uninstall_all(self):
        self._release.uninstall()
        self._cluster.until_as_before(self._before)

    def _members(self):
        return self._release.pods("node")

    def _uids(self):
        return {name: pod["metadata"]["uid"] for name, pod in self._members().items()}

    def _statefulset(self):
        return self._cluster.api.get(self._release.apps("statefulsets", MEMBERS))

    def _are_ready(self, count):
        def ready():
            members = self._members()
            return sorted(members) == [f"{MEMBERS}-{number}" for number in range(count)] and all(map(serves, members.values()))
        until(f"{count} members are ready", ready, 60)

    def _until_budget(self, allowed):
        path = self._release.path("poddisruptionbudgets", MEMBERS, "/apis/policy/v1")
        until(f"the budget allows {allowed}", lambda: self._cluster.api.get(path)["status"].get("disruptionsAllowed") == allowed, 60)

    def _addresses(self, service):
        slices = self._cluster.api.items(self._release.path("endpointslices", group="/apis/discovery.k8s.io/v1")
                                         + f"?labelSelector=kubernetes.io/service-name%3D{service}")
        return sum(len(one["endpoints"] or []) for one in slices)


def _member_serves(pod):
    return pod["metadata"]["labels"].get("app.kubernetes.io/component") == "node" and serves(pod)


def _version(item):
    """Of all that the API server stores, a later change has the greater one."""
    return int(item["metadata"]["resourceVersion"])


def _arguments(job):
    return job["spec"]["template"]["spec"]["containers"][0]["args"]
