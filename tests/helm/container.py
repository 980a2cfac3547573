"""What a kubelet makes of a container: its variables, arguments and files; and what the program says of them."""

import contextlib
import http.client
import json
import pathlib
import re
import socket
import subprocess
import tempfile
import time

from chart import BINARY, of_kind, pods, serving

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_LISTENER = re.compile(r"(https?://)\[::\]:(\d+)")
# A debug build on a busy machine; what cannot be used is refused in milliseconds.
_PATIENCE = 30
# After so many seconds, a program that asks others and serves nothing has long read its flags.
_ASKS = 1
_KNOWN = {}


class Container:
    """The first container of a pod. Where it would listen for every address, it listens on loopback."""

    def __init__(self, documents, spec, pod="release-rafthttp-0"):
        self._container, self._pod = spec["containers"][0], pod
        self.variables = self._environment(documents)
        self.arguments = [_expand(text, self.variables) for text in self._container["args"]]

    def _environment(self, documents):
        """As the kubelet makes it: of two sources the later, and any variable of the container's own before all of them."""
        variables, own = {}, {}
        for source in self._container.get("envFrom", []):
            name = source.get("configMapRef", {}).get("name")
            for document in of_kind(documents, "ConfigMap"):
                if document["metadata"]["name"] == name:
                    variables |= document["data"]
        for entry in self._container.get("env", []):
            assert entry["name"] not in own, f"{entry['name']} is there twice: a server-side apply refuses it"
            own[entry["name"]] = self._value(entry, own)
        return variables | own

    def _value(self, entry, own):
        if "valueFrom" in entry:
            field = entry["valueFrom"]["fieldRef"]["fieldPath"]
            assert field == "metadata.name", field
            return self._pod
        assert isinstance(entry.get("value", ""), str), entry
        return _expand(entry.get("value", ""), own)

    @contextlib.contextmanager
    def started(self, certificates, address="127.0.0.1", **variables):
        """The program on them, with its standard error in a file, and the ports that stand for those it has in its pod."""
        with tempfile.TemporaryDirectory() as directory:
            here, ports = pathlib.Path(directory), {}

            def elsewhere(text):
                for mount in self._container.get("volumeMounts", []):
                    text = re.sub(rf"{mount['mountPath']}(?=/|$)", f"{here}{mount['mountPath']}", text)
                return _LISTENER.sub(lambda found: f"{found[1]}{address}:{ports.setdefault(int(found[2]), free_port())}", text)

            environment = {name: elsewhere(value) for name, value in {**self.variables, **variables}.items()}
            arguments = [elsewhere(text) for text in self.arguments]
            for mount in self._container.get("volumeMounts", []):
                _fill(here / mount["mountPath"].lstrip("/"), [*environment.values(), *arguments], certificates)
            said = here / "said"
            with said.open("w") as out:
                process = subprocess.Popen([BINARY, *arguments], env=environment, stdout=out, stderr=out, cwd=here)
                try:
                    yield process, said, ports
                finally:
                    process.kill()
                    process.wait()

    def refusal(self, certificates):
        """What the program says when it ends with the status of flags that cannot be used; nothing when it goes on to work.
        A member makes its cluster at once, as auto would with the others there: so all that it checks is checked."""
        others = {"RAFTHTTP_INITIAL_CLUSTER_STATE": "new"} if self.variables.get("RAFTHTTP_INITIAL_CLUSTER_STATE") == "auto" else {}
        with self.started(certificates, **others) as (process, said, ports):
            started = time.monotonic()
            while process.poll() is None and not self._works(ports, time.monotonic() - started):
                assert time.monotonic() < started + _PATIENCE, f"{self.arguments}: neither works nor ends: {said.read_text()}"
                time.sleep(0.02)
            return said.read_text() if process.poll() == 2 else ""

    def _works(self, ports, seconds):
        if self.arguments[0] == "node":
            # The port is bound before all is checked, and answers after.
            return 2379 in ports and answers("127.0.0.1", ports[2379], "/")
        if not ports:
            return seconds > _ASKS
        return any(answers("127.0.0.1", port, "/livez") for port in ports.values())


def refusals(documents, certificates):
    """What each pod's program says that cannot use what it is given. The same is asked once."""
    said = []
    for _, spec in pods(documents):
        container = Container(documents, spec)
        key = json.dumps([container.arguments, container.variables, spec["containers"][0].get("volumeMounts")])
        if key not in _KNOWN:
            _KNOWN[key] = container.refusal(certificates)
        said.append(_KNOWN[key])
    return [text for text in said if text]


def settings(documents):
    """The variables and arguments of the members or watchers."""
    container = Container(documents, serving(documents))
    return container.variables, container.arguments


def answers(host, port, path):
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _expand(text, variables):
    def value(found):
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])
    return _REFERENCE.sub(value, text)


def _fill(directory, texts, certificates):
    """Makes what is mounted there, with a certificate or a key for each file that is named in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for text in texts:
        path = pathlib.Path(text.split("=")[-1])
        if path.parent == directory and directory.name.endswith("tls"):
            path.write_bytes((certificates / ("key.pem" if "key" in path.name else "cert.pem")).read_bytes())
