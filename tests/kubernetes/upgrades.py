"""What an operator meets over the years: a stricter namespace, values of an older chart, volumes that are to grow."""

import shutil

import yaml

from lab import until

from .api import name_of
from .node import MEMBERS
from .release import CHART, Release

_MODES = [[], ["--set", "mode=probe,probe.targets={http://192.0.2.1:2380}"]]
# The account that every namespace has: a pod is refused as long as its own is not there.
_ACCOUNT = ["--set", "serviceAccount.create=false"]


class Upgrades:
    """One release. The checks build on each other, in order."""

    def __init__(self, lab, report, cluster, place):
        self._lab, self._report, self._cluster, self._place = lab, report, cluster, place
        self._release = Release(cluster, "store", f"upgrades-{cluster.major}")

    def run(self):
        self._cluster.namespace(self._release.namespace)
        for what, step in [
            ("a namespace that enforces `restricted` takes every pod without a warning, and none without its security contexts",
             self._restricted),
            ("upgrade --reuse-values, out of a chart that had no other values than its security contexts", self._reuse),
            ("another size of the volumes: an upgrade says how, before its hook runs", self._size_refused),
            ("volumes grow: claims, StatefulSet and upgrade, and no member is replaced", self._grow),
        ]:
            self._report.check(f"{self._place}: upgrades: {what}", step)
        self._release.uninstall()
        self._cluster.remove_namespace(self._release.namespace)

    def _restricted(self):
        for mode in _MODES:
            pods = self._pods(*mode)
            assert len(pods) >= 2, pods
            self._create("\n---\n".join(map(yaml.safe_dump, pods)))
            for context in ("podSecurityContext", "securityContext"):
                for pod in self._pods(*mode, "--set", f"{context}=null"):
                    said = self._create(yaml.safe_dump(pod), fails=True)
                    assert 'violates PodSecurity "restricted' in said, said

    def _pods(self, *values):
        """Each pod that the chart would have, as an object of its own."""
        rendered = self._cluster.helm.run("template", "store", CHART, *_ACCOUNT, *values, "--namespace", self._release.namespace)
        found = []
        for document in filter(None, yaml.safe_load_all(rendered)):
            pod = document if document["kind"] == "Pod" else document.get("spec", {}).get("template")
            if pod:
                metadata = {"name": name_of(document), "namespace": self._release.namespace, "labels": pod["metadata"]["labels"]}
                volumes = pod["spec"].get("volumes", []) + [{"name": "data", "emptyDir": {}}]
                found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**pod["spec"], "volumes": volumes}})
        return found

    def _create(self, given, **how):
        return self._cluster.kubectl.run("create", "--dry-run=server", "--filename=-", given=given, **how)

    def _reuse(self):
        older = shutil.copytree(CHART, self._lab.path(f"older-{self._cluster.major}"))
        values = yaml.safe_load((older / "values.yaml").read_text())
        # Without these, a namespace like this one takes no pod.
        kept = {name: values[name] for name in ("podSecurityContext", "securityContext")}
        (older / "values.yaml").write_text(yaml.safe_dump(kept))
        Release(self._cluster, "store", self._release.namespace, older).install()
        before = self._sizes()
        self._release.upgrade("--reuse-values", "--set", "podAnnotations.again=yes")
        assert len(self._release.pods("node")) == 3 and self._sizes() == before

    def _size_refused(self):
        jobs = self._release.path("jobs", group="/apis/batch/v1")
        history = self._cluster.api.history(jobs)
        said = self._release.upgrade("--set", "node.persistence.size=20Gi,replicaCount=1", fails=True)
        assert "node.persistence.size" in said and "--cascade=orphan" in said, said
        assert not history.changes(), "the hook ran"
        # The same size in other words is the same size.
        self._release.upgrade("--set", "node.persistence.size=8192Mi")

    def _grow(self):
        before = self._uids()
        for claim in self._release.claims():
            self._in_namespace("patch", "persistentvolumeclaim", claim, "--patch",
                               '{"spec": {"resources": {"requests": {"storage": "20Gi"}}}}')
        self._in_namespace("delete", "statefulset", MEMBERS, "--cascade=orphan")
        self._release.upgrade("--set", "node.persistence.size=20Gi")
        assert self._uids() == before, "a member was replaced"
        self._release.upgrade("--set", "node.persistence.size=20Gi,replicaCount=5")
        assert before.items() <= self._uids().items(), "a member was replaced"
        until("five claims are of the new size", lambda: self._sizes() == {f"data-{MEMBERS}-{number}": "20Gi" for number in range(5)})

    def _in_namespace(self, *arguments):
        self._cluster.kubectl.run(*arguments, "--namespace", self._release.namespace)

    def _uids(self):
        return {name: pod["metadata"]["uid"] for name, pod in self._release.pods("node").items()}

    def _sizes(self):
        claims = self._cluster.api.items(self._release.path("persistentvolumeclaims"))
        return {name_of(claim): claim["spec"]["resources"]["requests"]["storage"] for claim in claims}
