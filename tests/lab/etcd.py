"""A cluster of real etcd members, with the verbs of `Cluster`."""

import base64
import http.client
import json
import urllib.parse
import urllib.request

from .exposition import scrape
from .members import Members
from .processes import tool, until


class EtcdNode:
    def __init__(self, lab, name):
        self.name = name
        self.peer, self.client = (f"http://127.0.0.1:{lab.port()}" for _ in range(2))
        self.process = None

    @property
    def target(self):
        return self.client.removeprefix("http://")

    def start(self):
        self.process.start()
        return self

    def freeze(self):
        self.process.freeze()

    def thaw(self):
        self.process.thaw()

    def kill(self):
        self.process.kill()

    def scrape(self):
        return scrape(f"{self.client}/metrics")

    def leads(self):
        return self.scrape().value("etcd_server_is_leader") == 1

    def put(self, key, value, seconds=10):
        """By the gateway for JSON, on a connection of its own. Whether it was done."""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.client).netloc, timeout=seconds)
        try:
            body = {name: base64.b64encode(text.encode()).decode() for name, text in (("key", key), ("value", value))}
            connection.request("POST", "/v3/kv/put", json.dumps(body))
            return connection.getresponse().status == 200
        finally:
            connection.close()


class EtcdCluster(Members):
    """Members of one version (`tests/tools/etcd`), started new."""

    def __init__(self, lab, version="3.4", members=3, prefix="etcd-"):
        program = tool("etcd", version)
        self.nodes = [EtcdNode(lab, f"{prefix}n{number + 1}") for number in range(members)]
        others = ",".join(f"{node.name}={node.peer}" for node in self.nodes)
        for node in self.nodes:
            node.process = lab.process(node.name, [
                program, "--name", node.name, "--data-dir", lab.path(f"{node.name}.data"),
                "--listen-peer-urls", node.peer, "--initial-advertise-peer-urls", node.peer,
                "--listen-client-urls", node.client, "--advertise-client-urls", node.client,
                "--initial-cluster", others, "--initial-cluster-token", prefix, "--log-level", "error",
            ])

    def leader(self, seconds=30):
        def leads():
            return next((node for node in self.nodes if _answers(node) and node.leads()), None)
        return until("an etcd leader", leads, seconds)


def _answers(node):
    try:
        with urllib.request.urlopen(f"{node.client}/version", timeout=1):
            return True
    except OSError:
        return False
