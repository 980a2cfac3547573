"""A Kubernetes without containers: a real etcd, API server, controllers and scheduler on loopback, and nodes whose kubelets
kwok pretends. Pods become ready, jobs end, volumes are there, and nothing runs."""

import pathlib
import secrets
import subprocess

import yaml

from lab import tool, until

from .api import Api
from .stages import stages

ZONES = "abc"
# The class that volumes are of by default, and the one that ci/node-everything-values.yaml asks for.
STORAGE_CLASSES = ["standard", "fast"]


class ControlPlane:
    """`emulated` is the older version that all of it behaves as."""

    def __init__(self, lab, emulated=None):
        self._lab, self._emulated = lab, emulated
        self._programs = pathlib.Path(tool("kubernetes"))
        self._kwok, self._etcd = pathlib.Path(tool("kwok")), tool("etcd", "3.6")
        self._directory = lab.path("control-plane")
        self._directory.mkdir()
        self._port, self._token = lab.port(), secrets.token_hex(16)
        self.kubeconfig = self._directory / "kubeconfig"
        self.api = Api(self._port, self._token, self._directory / "certs/apiserver.crt")
        self._processes = []

    def start(self):
        self._secrets()
        self._run("etcd", self._etcd, *self._storage())
        self._run("kube-apiserver", self._programs / "kube-apiserver", *self._server()).until_ready(self.api.ready, 120)
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._run(name, self._programs / name, *self._controller(), *(self._manager() if "manager" in name else []))
        self._directory.joinpath("stages.yaml").write_text(stages(self._kwok / "stage", STORAGE_CLASSES))
        self._run("kwok", self._kwok / "kwok", "--kubeconfig", self.kubeconfig, "-c", self._directory / "stages.yaml",
                  "--manage-all-nodes=true", "--node-ip", _NODE_ADDRESS, "--cidr", "10.244.0.0/16",
                  "--server-address", f"127.0.0.1:{self._lab.port()}")
        for number, name in enumerate(STORAGE_CLASSES):
            self._storage_class(name, default=number == 0)
        return self

    def stop(self):
        for process in self._processes[::-1]:
            process.stop()

    def version(self):
        """What it answers as, such as 1.34; `gitVersion` is what it was built as."""
        version = self.api.get("/version")
        answers = f"{version['emulationMajor']}.{version['emulationMinor']}"
        assert answers == (self._emulated or answers), f"it answers as {answers}, not {self._emulated}"
        return answers

    def add_node(self, name, zone):
        """A node that is ready; kwok plays its kubelet."""
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, "disk": "ssd"}
        self.api.create("/api/v1/nodes", {
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "status": {"allocatable": _ROOM, "capacity": _ROOM},
        })
        def schedulable():
            node = self.api.get(f"/api/v1/nodes/{name}")
            ready = [one for one in node["status"].get("conditions", []) if one["type"] == "Ready" and one["status"] == "True"]
            return ready and not node["spec"].get("taints")
        until(f"{name} can be scheduled onto", schedulable, 60)

    def remove_node(self, name):
        self.api.delete(f"/api/v1/nodes/{name}")

    def _run(self, name, *arguments):
        process = self._lab.process(name, arguments).start()
        self._processes.append(process)
        return process

    def _secrets(self):
        self._directory.joinpath("tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        done = subprocess.run([tool("openssl"), "genrsa", "-out", "accounts.key", "2048"], cwd=self._directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": f"https://127.0.0.1:{self._port}",
                "certificate-authority": str(self._directory / "certs/apiserver.crt"),
            }}],
            "users": [{"name": "it", "user": {"token": self._token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }))

    def _storage(self):
        client, peer = (f"http://127.0.0.1:{self._lab.port()}" for _ in range(2))
        self._store = client
        return [
            "--name", "it", "--data-dir", self._directory / "etcd", "--unsafe-no-fsync", "--log-level", "warn",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"it={peer}",
        ]

    def _server(self):
        key = self._directory / "accounts.key"
        return [
            "--etcd-servers", self._store, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
            "--secure-port", self._port, "--cert-dir", self._directory / "certs", "--endpoint-reconciler-type", "none",
            "--service-cluster-ip-range", "10.0.0.0/24,fd00:10::/112", "--authorization-mode", "RBAC",
            "--token-auth-file", self._directory / "tokens.csv", "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-key-file", key, "--service-account-signing-key-file", key,
            *self._version(),
        ]

    def _controller(self):
        port = self._lab.port()
        return [
            "--kubeconfig", self.kubeconfig, "--authentication-skip-lookup", "--leader-elect=false",
            "--bind-address", "127.0.0.1", "--secure-port", port, "--cert-dir", self._directory / f"certs-{port}",
            *self._version(),
        ]

    def _version(self):
        return [f"--emulated-version={self._emulated}"] if self._emulated else []

    def _manager(self):
        return [
            # A heartbeat of kwok's that is late on a busy machine is no node that is gone, whose pods are ready no more.
            "--node-monitor-grace-period=30m",
            "--service-account-private-key-file", self._directory / "accounts.key",
            "--root-ca-file", self._directory / "certs/apiserver.crt",
        ]

    def _storage_class(self, name, default):
        self.api.create("/apis/storage.k8s.io/v1/storageclasses", {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kwok.x-k8s.io/volume",
            "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate", "allowVolumeExpansion": True,
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": str(default).lower()}},
        })


# Of a range for documentation. Nobody listens there; a service refuses loopback as the address of a pod on its node's network.
_NODE_ADDRESS = "192.0.2.10"
_ROOM = {"cpu": "8", "memory": "32Gi", "pods": "110"}
