"""Clusters of real etcd members, each dialled through a relay of its own."""

import base64
import http.client
import json
import threading
import urllib.parse
import urllib.request

from lab import Relay, tool, until

VERSIONS = ("3.4", "3.5", "3.6", "3.7")

# Entries that are kept for those who are behind: 3.4 always keeps 5000, later ones can be told.
KEPT = {"3.4": 5000}
KEEP_FEW = {
    "3.4": [],
    "3.5": ["--experimental-snapshot-catchup-entries", "5"],
    "3.6": ["--snapshot-catchup-entries", "5"],
    "3.7": ["--snapshot-catchup-entries", "5"],
}


class Member:
    """One etcd."""

    def __init__(self, lab, name):
        port = lab.port()
        self.name, self.listen = name, f"http://127.0.0.1:{port}"
        self.relay = lab.owns(Relay(("127.0.0.1", port)))
        self.client = f"http://127.0.0.1:{lab.port()}"
        self.process = None

    @property
    def target(self):
        return self.client.removeprefix("http://")

    def metrics(self):
        """The text of `/metrics`."""
        with urllib.request.urlopen(f"{self.client}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def status(self):
        """Its ID, its cluster's and its leader's, as numbers in text, and the last index."""
        request = urllib.request.Request(f"{self.client}/v3/maintenance/status", data=b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)


class EtcdCluster:
    """Three members of one version."""

    def __init__(self, lab, version):
        program = tool("etcd", version)
        self.version, self.members = version, [Member(lab, f"e{number}") for number in (1, 2, 3)]
        initial = ",".join(f"{member.name}={member.relay.url}" for member in self.members)
        for member in self.members:
            member.process = lab.process(f"{member.name}-{version}", [
                program, "--name", member.name, "--data-dir", lab.path(f"{member.name}-{version}.data"),
                "--listen-peer-urls", member.listen, "--initial-advertise-peer-urls", member.relay.url,
                "--listen-client-urls", member.client, "--advertise-client-urls", member.client,
                "--initial-cluster", initial, "--snapshot-count", "20", "--logger", "zap", *KEEP_FEW[version],
            ])

    def start(self):
        for member in self.members:
            member.process.start()
        for member in self.members:
            member.process.until_ready(lambda member=member: int(member.status().get("leader", 0)))
        return self

    def targets(self):
        return [member.target for member in self.members]

    def leader(self):
        def agreed():
            by_id = {member.status()["header"]["member_id"]: member for member in self.members if member.process.runs()}
            return by_id.get(next(iter(by_id.values())).status().get("leader"))
        return until("a leader", agreed, 60)

    def follower(self):
        leader = self.leader()
        return next(member for member in self.members if member is not leader)


class Writes:
    """Writes as fast as they go, by several writers, until it is stopped. A context manager."""

    def __init__(self, members, writers=16, pause=0.0):
        self._stop, self._pause = threading.Event(), pause
        self._threads = [threading.Thread(target=self._write, args=(members[number % len(members)], number), daemon=True)
                         for number in range(writers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _write(self, member, number):
        address, connection = urllib.parse.urlsplit(member.client).netloc, None
        key = base64.b64encode(b"key-%d" % number).decode()
        body = json.dumps({"key": key, "value": base64.b64encode(b"v" * 64).decode()})
        while not self._stop.wait(self._pause):
            try:
                connection = connection or http.client.HTTPConnection(address, timeout=5)
                connection.request("POST", "/v3/kv/put", body=body)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                if connection:
                    connection.close()
                connection = None
                self._stop.wait(0.1)
