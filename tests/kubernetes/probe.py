"""Mode probe: a watch over an existing etcd, as a Deployment and as a DaemonSet."""

from lab import until

from .api import serves
from .release import Release

WATCHERS = "watch-rafthttp"
_TARGETS = ["--set", "mode=probe,probe.targets={http://192.0.2.1:2380}"]


class ProbeMode:
    """One release of a kind. The checks build on each other, in order."""

    def __init__(self, report, cluster, place, kind):
        self._report, self._cluster, self._place, self._kind = report, cluster, place, kind
        self._release = Release(cluster, "watch", f"probe-{kind.lower()}-{cluster.major}")
        self._values = [*_TARGETS, "--set", f"probe.kind={kind}"]

    def run(self):
        self._cluster.namespace(self._release.namespace)
        self._before = self._cluster.everything()
        daemon = self._kind == "DaemonSet"
        scale = ("a node more, a watcher more; and one less", self._nodes) if daemon else ("scale up and down", self._scale)
        for what, step in [
            ("install --wait", self._install),
            ("helm test: its pod is taken, and leaves nothing", self._test),
            ("upgrade: every watcher anew", self._upgrade),
            ("rollback: as it was", self._rollback),
            scale,
            ("drain: no watcher holds it up", self._drain),
            ("to the other kind and back", self._other_kind),
            ("no warning among the events", self._no_warnings),
            ("uninstall: nothing is left", self._uninstall),
        ]:
            self._report.check(f"{self._place}: probe as {self._kind}: {what}", step)
        self._cluster.remove_namespace(self._release.namespace)

    def _count(self):
        return len(self._cluster.api.items("/api/v1/nodes")) if self._kind == "DaemonSet" else 1

    def _install(self):
        self._release.install(*self._values)
        self._are_ready(self._count())

    def _test(self):
        self._release.test()
        assert not self._release.pods("test")

    def _upgrade(self):
        self._rolls(lambda: self._release.upgrade(*self._values, "--set", "probe.interval=2s"), "2s")

    def _rollback(self):
        self._rolls(lambda: self._release.rollback(1), "1s")

    def _rolls(self, act, interval):
        before = self._uids()
        act()
        self._are_ready(self._count())
        assert not before & self._uids(), "a watcher was not replaced"
        for pod in self._watchers().values():
            variables = pod["spec"]["containers"][0]["env"]
            assert {"name": "RAFTHTTP_INTERVAL", "value": interval} in variables, variables

    def _scale(self):
        before = self._uids()
        self._release.upgrade(*self._values, "--set", "probe.replicas=3")
        self._are_ready(3)
        assert before <= self._uids(), "the watcher was replaced"
        self._release.upgrade(*self._values)
        self._are_ready(1)

    def _nodes(self):
        before, count = self._uids(), self._count()
        self._cluster.plane.add_node("node-more", "a")
        try:
            self._are_ready(count + 1)
            assert before <= self._uids(), "a watcher was replaced"
            self._cluster.kubectl.run("taint", "node", "node-more", "leaves=soon:NoExecute")
            self._are_ready(count)
        finally:
            self._cluster.plane.remove_node("node-more")

    def _drain(self):
        kubectl, node = self._cluster.kubectl, next(iter(self._watchers().values()))["spec"]["nodeName"]
        try:
            # kubectl warns of each daemon that it stays.
            said = kubectl.run("drain", node, "--ignore-daemonsets", "--timeout=60s", warns=True)
            assert (WATCHERS in said) and ("ignoring DaemonSet" in said) == (self._kind == "DaemonSet"), said
            self._are_ready(self._count())
            stays = node in {pod["spec"]["nodeName"] for pod in self._watchers().values()}
            assert stays == (self._kind == "DaemonSet")
        finally:
            kubectl.run("uncordon", node)

    def _other_kind(self):
        other = {"Deployment": "DaemonSet", "DaemonSet": "Deployment"}[self._kind]
        self._release.upgrade(*_TARGETS, "--set", f"probe.kind={other}")
        self._release.upgrade(*self._values)
        self._are_ready(self._count())

    def _no_warnings(self):
        assert not self._cluster.warnings(self._release.namespace), self._cluster.warnings(self._release.namespace)

    def _uninstall(self):
        self._release.uninstall()
        self._cluster.until_as_before(self._before)

    def _watchers(self):
        return self._release.pods("probe")

    def _uids(self):
        return {pod["metadata"]["uid"] for pod in self._watchers().values()}

    def _are_ready(self, count):
        def ready():
            watchers = self._watchers()
            return len(watchers) == count and all(map(serves, watchers.values()))
        until(f"{count} watchers are ready", ready, 60)
