"""A peer that is none, its messages, and a trace collector."""

import datetime
import http.client
import http.server
import json
import threading
import time
import urllib.parse


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A peer that hangs up is no news."""


class _Server:
    """Answers on a port of its own, from a method `answer(handler)` of the owner."""

    def __init__(self, lab, port):
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                owner.answer(self)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self._server = _Quiet(("127.0.0.1", port), Handler, bind_and_activate=False)
        lab.owns(self)

    def listen(self):
        self._server.server_bind()
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        if self._server.socket.getsockname()[1]:
            self._server.shutdown()
        self._server.server_close()


class FakePeer(_Server):
    """Answers probes, with a clock that is `clock` seconds ahead; refuses everything else, by its `version` or as a stranger.

    `tells` maps members to what they are told when they dial for a stream of messages: the cluster, and the message.
    """

    def __init__(self, lab, clock, version):
        self.clock, self.version, self.tells, port = clock, version, {}, lab.port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(lab, port)
        self.listen()

    def answer(self, handler):
        if handler.path == "/raft/probing":
            now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.clock)
            return _reply(handler, 200, json.dumps({"OK": True, "Now": now.isoformat()}))
        told = self.tells.get(handler.headers.get("X-Server-From")) if handler.path.startswith("/raft/stream/message") else None
        if told:
            return _stream(handler, *told)
        if self.version == "incompatible":
            return _reply(handler, 412, "incompatible version\n")
        return _reply(handler, 404, "error sender not found\n")


class Collector(_Server):
    """A trace collector (OTLP over HTTP) that is away until it is started, and then takes everything."""

    def __init__(self, lab):
        port = lab.port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(lab, port)

    def start(self):
        self.listen()

    def answer(self, handler):
        _reply(handler, 200, "", "application/x-protobuf")


def _reply(handler, status, body, kind="text/plain; charset=utf-8"):
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("X-Server-Version", "3.6.0")
    handler.end_headers()
    handler.wfile.write(body.encode())


def _stream(handler, cluster, message):
    """A stream of one message, which then says nothing for a while."""
    handler.send_response(200)
    for name, value in (("X-Server-Version", "3.6.0"), ("X-Etcd-Cluster-ID", cluster), ("Connection", "close")):
        handler.send_header(name, value)
    handler.end_headers()
    handler.close_connection = True
    handler.wfile.write(len(message).to_bytes(8, "big") + message)
    handler.wfile.flush()
    time.sleep(2)


def append_after(to, sender, term, index):
    """An append without entries that follows entry `index` of `term`."""
    return _message(((1, 3), (2, int(to, 16)), (3, int(sender, 16)), (4, term), (5, term), (6, index)))


def _message(fields):
    return b"".join(bytes([number << 3]) + _varint(value) for number, value in fields)


def post_message(url, cluster, to, sender):
    """Posts, as `sender`, an append that raft must refuse: one that follows an entry of no term."""
    message = _message(((1, 3), (2, int(to, 16)), (3, int(sender, 16)), (4, 1), (5, 0), (6, 5)))  # type, to, from, term, logTerm, index
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=5)
    try:
        connection.request("POST", "/raft", body=message, headers={
            "Content-Type": "application/protobuf", "X-Server-From": sender, "X-Server-Version": "3.6.0",
            "X-Min-Cluster-Version": "3.0.0", "X-Etcd-Cluster-ID": cluster})
        return connection.getresponse().status
    finally:
        connection.close()


def _varint(value):
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
