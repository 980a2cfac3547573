"""The API server, asked without kubectl: what is there, and what became of it since."""

import http.client
import json
import ssl


class Api:
    """Objects by their paths, such as `/api/v1/nodes`."""

    def __init__(self, port, token, authority):
        self._port, self._token, self._authority = port, token, authority

    def get(self, path):
        return json.loads(self._ask("GET", path))

    def items(self, path):
        return self.get(path)["items"]

    def exists(self, path):
        return self._ask("GET", path, absent=b"") != b""

    def create(self, path, document):
        self._ask("POST", path, document)

    def delete(self, path):
        self._ask("DELETE", path)

    def history(self, path):
        """Remembers what is at `path` now."""
        return History(self, path)

    def lines(self, path):
        return self._ask("GET", path).splitlines()

    def ready(self):
        return self._ask("GET", "/readyz") == b"ok"

    def _ask(self, method, path, document=None, absent=None):
        context = ssl.create_default_context(cafile=self._authority)
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=context)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status == 404 and absent is not None:
            return absent
        if answer.status not in (200, 201, 202):
            raise OSError(f"{method} {path}: {answer.status}: {said.decode(errors='replace')}")
        return said


class History:
    """What was at a path, and every change since: the server keeps them for minutes, and none is missed."""

    def __init__(self, api, path):
        listed = api.get(path)
        self._api, self._path, self._version = api, path, listed["metadata"]["resourceVersion"]
        self.before = listed["items"]

    def changes(self):
        """Pairs of what happened (ADDED, MODIFIED, DELETED) and the object as it was then, in order."""
        lines = self._api.lines(f"{self._path}?watch=1&resourceVersion={self._version}&timeoutSeconds=1")
        changes = [json.loads(line) for line in lines]
        assert all(change["type"] != "ERROR" for change in changes), changes[-1]
        return [(change["type"], change["object"]) for change in changes]

    def fewest(self, holds):
        """The smallest number of objects for which `holds` was true at once, from then to now."""
        good = {name_of(item) for item in self.before if holds(item)}
        fewest = len(good)
        for what, item in self.changes():
            (good.add if what != "DELETED" and holds(item) else good.discard)(name_of(item))
            fewest = min(fewest, len(good))
        return fewest


def name_of(item):
    return item["metadata"]["name"]


def serves(pod):
    """Whether a pod is ready and not about to go."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
