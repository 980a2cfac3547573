"""A steady write load."""

import http.client
import threading
import urllib.parse


class Load:
    """Writes through members, one writer for each, `rate` in all a second at most, until it is stopped. A context manager.

    A write that fails or is late counts as failed, and the next one follows. Members that are frozen cost their own writer only.
    """

    def __init__(self, members, rate=200, size=128, keys=64):
        members = list(members)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self.written = self.failed = 0
        pause = len(members) / rate
        self._threads = [
            threading.Thread(target=self._write, args=(node, pause, b"v" * size, keys), daemon=True) for node in members
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _write(self, node, pause, value, keys):
        address, connection, number = urllib.parse.urlsplit(node.client).netloc, None, 0
        while not self._stop.wait(pause):
            try:
                connection = connection or http.client.HTTPConnection(address, timeout=2)
                connection.request("PUT", f"/kv/{node.name}-{number % keys}", body=value)
                answer = connection.getresponse()
                answer.read()
                ok = answer.status == 204
            except (OSError, http.client.HTTPException):
                ok = False
                if connection:
                    connection.close()
                connection = None
            number += 1
            with self._lock:
                self.written += ok
                self.failed += not ok
