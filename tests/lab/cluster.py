"""A cluster of `rafthttp node` processes."""

import json
import urllib.error
import urllib.request

from .exposition import scrape
from .members import Members
from .processes import binary, until
from .relay import Relay


class Node:
    """A member: its ports and its process."""

    def __init__(self, lab, name, peer_port, relay):
        self.name, self.relay = name, relay
        self.listen = f"http://127.0.0.1:{peer_port}"
        self.peer = relay.url if relay else self.listen
        self.client, self.metrics = (f"http://127.0.0.1:{lab.port()}" for _ in range(2))
        self.process = None

    @property
    def target(self):
        """What Prometheus scrapes: host and port."""
        return self.metrics.removeprefix("http://")

    def start(self):
        self.process.start()
        return self

    def freeze(self):
        self.process.freeze()

    def thaw(self):
        self.process.thaw()

    def kill(self):
        self.process.kill()

    def stop(self):
        return self.process.stop()

    def scrape(self):
        return scrape(f"{self.metrics}/metrics")

    def peers(self):
        """`/api/peers`."""
        return json.loads(self.ask("GET", "/api/peers", of=self.metrics))

    def status(self):
        """`/status`: id, leader, term, indexes."""
        return json.loads(self.ask("GET", "/status"))

    @property
    def id(self):
        """Its member ID, in hex; it has to run."""
        return self.status()["id"]

    def put(self, key, value, seconds=5):
        self.ask("PUT", f"/kv/{key}", value if isinstance(value, bytes) else value.encode(), seconds=seconds)

    def get(self, key):
        return self.ask("GET", f"/kv/{key}").decode()

    def ask(self, method, path, body=None, of=None, seconds=5):
        request = urllib.request.Request(f"{of or self.client}{path}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.read()


class Cluster(Members):
    """Members that know each other. `extra` are flags for all, `environment` variables for all.

    With `relays`, each member is dialled through a relay of its own (`node.relay`), which can be slow, deaf or cut.
    With `tls` (a `Certificates`), peers speak TLS.
    """

    def __init__(self, lab, members=3, extra=(), environment=None, relays=False, token="lab", tls=None, prefix=""):
        self.lab, self.extra, self.environment, self.token = lab, list(extra), dict(environment or {}), token
        self.nodes, self._relays, self._tls, self._prefix = [], relays, tls, prefix
        for _ in range(members):
            self._place()
        for node in self.nodes:
            node.process = self._process(node, "new")

    def _place(self):
        port = self.lab.port()
        relay = self.lab.owns(Relay(("127.0.0.1", port))) if self._relays else None
        node = Node(self.lab, f"{self._prefix}n{len(self.nodes) + 1}", port, relay)
        if self._tls:
            node.listen, node.peer = (url.replace("http://", "https://") for url in (node.listen, node.peer))
        self.nodes.append(node)
        return node

    def _process(self, node, state):
        others = ",".join(f"{member.name}={member.peer}" for member in self.nodes)
        arguments = [
            binary(), "--log-format", "json", "node", "--name", node.name, "--data-dir", self.lab.path(f"{node.name}.data"),
            "--listen-peer-urls", node.listen, "--initial-advertise-peer-urls", node.peer,
            "--listen-client-urls", node.client, "--advertise-client-urls", node.client,
            "--listen-metrics-urls", node.metrics, "--initial-cluster", others,
            "--initial-cluster-token", self.token, "--initial-cluster-state", state,
            *(self._tls.flags() if self._tls else []), *self.extra,
        ]
        return self.lab.process(node.name, arguments, self.environment)

    def leader(self, seconds=90):
        """The member that all that answer call leader; waits for one."""
        def agreed():
            said = {}
            for node in self.nodes:
                try:
                    said[node.name] = node.status()
                except OSError:
                    continue
            leaders = {status["leader"] for status in said.values()}
            if len(said) <= len(self.nodes) // 2 or len(leaders) != 1:
                return None
            leader, = leaders
            return next((node for node in self.nodes if said.get(node.name, {}).get("id") == leader), None)
        return until("a leader", agreed, seconds)

    def follower(self):
        """A member that does not lead."""
        leader = self.leader()
        return next(node for node in self.nodes if node is not leader)

    def add(self, learner=True):
        """One more member: announced to the cluster, started, and returned."""
        node = self._place()
        body = json.dumps({"peerURLs": [node.peer], "isLearner": learner}).encode()
        leader = self.leader()
        until(f"{node.name} is added", lambda: _asked(leader, "POST", "/members", body), 90)
        node.process = self._process(node, "existing")
        return node.start()

    def remove(self, node):
        """Removes a member from the cluster; its process then ends by itself."""
        gone, leader = node.id, self.leader()
        asked = leader if leader is not node else self.follower()
        until(f"{node.name} is removed", lambda: _asked(asked, "DELETE", f"/members/{gone}"), 90)
        return gone

    def linked(self, seconds=90):
        """Waits until every member has every stream with every other, in both directions."""
        streams = 4 * (len(self.nodes) - 1)
        for node in self.nodes:
            until(f"{node.name}'s streams", lambda node=node: node.scrape().sum("rafthttp_stream_up") == streams, seconds)
        return self


class Watcher:
    """`rafthttp probe` on a cluster, ours or etcd's: anything whose nodes have a `peer` URL."""

    def __init__(self, lab, cluster, extra=(), name=None):
        self.metrics = f"http://127.0.0.1:{lab.port()}"
        self.process = lab.process(name or f"{cluster[0].name}-watcher", [
            binary(), "--log-format", "json", "probe", "--listen-metrics-urls", self.metrics, *extra, *(node.peer for node in cluster)])

    @property
    def target(self):
        return self.metrics.removeprefix("http://")

    def start(self):
        self.process.start()
        return self

    def stop(self):
        return self.process.stop()

    def scrape(self):
        return scrape(f"{self.metrics}/metrics")


def _asked(node, method, path, body=None):
    try:
        node.ask(method, path, body)
        return True
    except urllib.error.HTTPError as refused:
        if refused.code not in (409, 503, 504):
            raise AssertionError(f"{method} {path}: {refused.code} {refused.read().decode()}") from refused
        return False
