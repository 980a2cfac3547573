"""A relay in front of a member's peer port: a link that can be slow, narrow, deaf or cut."""

import re
import socket
import threading
import time

_PIECE = 16 << 10
_FROM = re.compile(rb"^x-server-from: *(\S+)\r$", re.I | re.M)


class Fault:
    """What befalls the bytes of the connections that `applies` to (the head of their last request decides)."""

    def __init__(self, applies=None, delay=0.0, bytes_per_second=None, refuse=False, swallow_answers=False):
        self.applies = applies
        self.delay, self.bytes_per_second = delay, bytes_per_second
        self.refuse, self.swallow_answers = refuse, swallow_answers

    def concerns(self, head):
        """Whether it befalls a connection with this head; one that is TLS has none, and only what befalls all befalls it."""
        return self.applies is None or (bool(head) and self.applies(head))


class Relay:
    """Listens on a port of its own and passes on to `to`. `faults` is read for every piece of data: set it at any time.

    - `delay(seconds)`: every piece takes so long, each way
    - `narrow(bytes_per_second, applies)`: answers trickle
    - `refuse(applies)`: connections are closed once a request says that they are concerned, open ones too
    - `mute(applies)`: answers are swallowed, connections stay
    - `heal()`

    `applies` is a predicate over the head of a connection's last request: `Relay.stream`, `Relay.sent_by(id)`, or one of the test's own.
    """

    def __init__(self, to):
        self._to, self._faults, self._lock, self._open = to, [], threading.Lock(), set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @staticmethod
    def stream(head):
        """A stream's connection."""
        return b" /raft/stream/" in head.split(b"\r\n", 1)[0]

    @staticmethod
    def sent_by(member):
        """A connection on which this member (hex) asks."""
        return lambda head: (found := _FROM.search(head)) is not None and found.group(1).decode() == member

    def delay(self, seconds, applies=None):
        self._add(Fault(applies, delay=seconds))

    def narrow(self, bytes_per_second, applies=None):
        self._add(Fault(applies, bytes_per_second=bytes_per_second))

    def refuse(self, applies=None):
        self._add(Fault(applies, refuse=True))

    def mute(self, applies=None):
        self._add(Fault(applies, swallow_answers=True))

    def heal(self):
        """No fault any more. Connections whose bytes were swallowed are closed, since they can never be right again."""
        with self._lock:
            self._faults = []
            spoilt = [connection for connection in self._open if connection.spoilt]
        for connection in spoilt:
            connection.close()

    def cut(self):
        """Closes every connection that is open now; new ones pass."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.close()

    def close(self):
        self._listener.close()
        self.cut()

    def _add(self, fault):
        with self._lock:
            self._faults = [*self._faults, fault]
            connections = list(self._open)
        if fault.refuse:
            for connection in connections:
                if fault.concerns(connection.head):
                    connection.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        try:
            far = socket.create_connection(self._to, timeout=5)
        except OSError:
            near.close()
            return
        connection = _Connection(near, far)
        with self._lock:
            self._open.add(connection)
        there = threading.Thread(target=self._pump, args=(connection, near, far, True), daemon=True)
        there.start()
        self._pump(connection, far, near, False)
        there.join()
        connection.close()
        with self._lock:
            self._open.discard(connection)

    def _pump(self, connection, source, sink, asks):
        try:
            while piece := source.recv(_PIECE):
                if asks and piece.startswith((b"GET ", b"POST ")):
                    connection.head = piece
                if not self._pass(connection, piece, sink, asks):
                    connection.close()
                    return
            if connection.spoilt and not asks:
                connection.closed.wait()  # of an end of it, nothing is heard either
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()

    def _pass(self, connection, piece, sink, asks):
        """Passes a piece on as the faults of the moment have it. False: the connection has to go."""
        for fault in [fault for fault in self._faults if fault.concerns(connection.head)]:
            if fault.refuse:
                return False
            if fault.swallow_answers and not asks:
                connection.spoilt = True
                return True
            time.sleep(fault.delay)
            if fault.bytes_per_second and not asks:
                return self._trickle(piece, sink, fault)
        sink.sendall(piece)
        return True

    def _trickle(self, piece, sink, fault):
        step = max(1, fault.bytes_per_second // 20)
        for start in range(0, len(piece), step):
            sink.sendall(piece[start:start + step])
            if fault in self._faults:
                time.sleep(0.05)
        return True


class _Connection:
    def __init__(self, near, far):
        self.near, self.far, self.head, self.spoilt, self.closed = near, far, b"", False, threading.Event()
        for end in (near, far):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Small buffers, so that a narrow link is felt where it is written to.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)

    def close(self):
        self.closed.set()
        for end in (self.near, self.far):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()
