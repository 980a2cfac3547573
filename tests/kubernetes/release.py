"""helm and kubectl against one control plane, and what a release leaves there."""

import os
import subprocess

from lab import repository, tool, until

from .api import name_of

CHART = repository / "helm/rafthttp"
# Long enough for a roll-out of five members on a busy machine, short enough to see what hangs.
_PATIENCE = "180s"


class Command:
    """A program that talks to the control plane. A warning of the server's is a failure."""

    def __init__(self, program, lab, kubeconfig):
        homes = {f"HELM_{kind}_HOME": str(lab.path(f"helm-{kind.lower()}")) for kind in ("CACHE", "CONFIG", "DATA")}
        self._program, self._environment = program, {**os.environ, **homes, "KUBECONFIG": str(kubeconfig)}

    def run(self, *arguments, fails=False, warns=False, given=None, seconds=300):
        """What it says. With `fails`, it must fail; with `warns`, it may warn."""
        command = [str(self._program), *map(str, arguments)]
        done = subprocess.run(command, env=self._environment, input=given, capture_output=True, text=True, timeout=seconds, check=False)
        told = f"{' '.join(command[1:])}: status {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
        assert (done.returncode != 0) == fails, told
        assert fails or warns or "warning:" not in done.stderr.lower(), told
        return done.stdout + (done.stderr if fails or warns else "")


class Cluster:
    """A control plane with the programs that operators have."""

    def __init__(self, lab, plane, major):
        self.plane, self.api, self.major = plane, plane.api, major
        self.helm = Command(tool("helm", major), lab, plane.kubeconfig)
        self.kubectl = Command(tool("kubectl"), lab, plane.kubeconfig)

    def namespace(self, name, level="restricted"):
        """A namespace where pods must keep to a pod security standard: what does not is refused, and warned of."""
        labels = {f"pod-security.kubernetes.io/{what}": level for what in ("enforce", "warn", "audit")}
        self.api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        # The controllers put these there; they are no release's.
        until(f"namespace {name} has its account", lambda: self.api.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
        until(f"namespace {name} has its authority", lambda: self.api.exists(f"/api/v1/namespaces/{name}/configmaps/kube-root-ca.crt"))

    def remove_namespace(self, name):
        self.kubectl.run("delete", "namespace", name, "--timeout=120s")

    def everything(self):
        """Each object of every kind that can be listed, as kind, namespace and name; events, which go by themselves, apart."""
        kinds = self.kubectl.run("api-resources", "--verbs=list", "--output=name").split()
        kinds = [kind for kind in kinds if kind.split(".")[0] != "events" and kind != "componentstatuses"]
        columns = "KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
        lines = self.kubectl.run("get", ",".join(kinds), "--all-namespaces", "--no-headers",
                                 f"--output=custom-columns={columns}", warns=True)
        return {tuple(line.split()) for line in lines.splitlines()}

    def until_as_before(self, before):
        """Waits until there is what there was, neither more nor less."""
        def same():
            now = self.everything()
            if now != before:
                raise ValueError(f"left: {sorted(now - before)}, gone: {sorted(before - now)}")
            return True
        until("there is what there was before", same, 60, pause=0.5)

    def warnings(self, namespace):
        """Events of type Warning, but for those of the pretended volumes, which two controllers care for at once and get in
        each other's way, of pods that wait for a volume or for room (one that waits for ever fails `--wait`), and of the
        server's search for services without an address, which on a busy machine sees one before its address."""
        told = {}
        for event in self.api.items(f"/api/v1/namespaces/{namespace}/events?fieldSelector=type=Warning"):
            of = event["involvedObject"]
            volumes = of["kind"] == "PersistentVolumeClaim" or "could not update claim" in event["message"]
            if not volumes and event["reason"] not in ("FailedScheduling", "ClusterIPNotAllocated"):
                told[f"{event['reason']} {of['kind']} {of['name']}"] = event["message"]
        return told


class Release:
    """A release of the chart in a namespace of its own."""

    def __init__(self, cluster, name, namespace, chart=CHART):
        self.cluster, self.name, self.namespace, self._chart = cluster, name, namespace, chart

    def path(self, kind, name="", group="/api/v1"):
        return f"{group}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def apps(self, kind, name=""):
        return self.path(kind, name, "/apis/apps/v1")

    def install(self, *values):
        return self._helm("install", self.name, self._chart, *values, "--wait")

    def upgrade(self, *values, **how):
        return self._helm("upgrade", self.name, self._chart, *values, "--wait", **how)

    def rollback(self, revision):
        return self._helm("rollback", self.name, revision, "--wait")

    def test(self):
        return self._helm("test", self.name)

    def uninstall(self):
        return self._helm("uninstall", self.name, "--wait")

    def revision(self):
        """The number of what is deployed, from helm's own notes."""
        noted = self.cluster.api.items(self.path("secrets") + f"?labelSelector=owner%3Dhelm,name%3D{self.name},status%3Ddeployed")
        return max(int(secret["metadata"]["labels"]["version"]) for secret in noted)

    def pods(self, component):
        """The pods that serve, by name; those that go are not among them."""
        listed = self.cluster.api.items(self.path("pods") + f"?labelSelector=app.kubernetes.io/component%3D{component}")
        return {name_of(pod): pod for pod in listed if "deletionTimestamp" not in pod["metadata"]}

    def claims(self):
        return sorted(name_of(claim) for claim in self.cluster.api.items(self.path("persistentvolumeclaims")))

    def _helm(self, command, *arguments, **how):
        patience = [f"--timeout={_PATIENCE}"]
        return self.cluster.helm.run(command, *arguments, "--namespace", self.namespace, *patience, **how)
