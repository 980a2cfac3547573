"""A DNS server that does what a test wants: the names change, answers are late, wrong or missing."""

import collections
import ipaddress
import socket
import struct
import threading

_A, _AAAA = 1, 28
_NO_ERROR, _SERVFAIL, _NXDOMAIN = 0, 2, 3


class Dns:
    """Serves `names` by UDP on port 53 of an address: name to addresses, IPv4 and IPv6, in the order in which they are told.

    `faults` maps a name, or the end of names, to what befalls questions for it: "nxdomain", "servfail", "silent", or a number of
    seconds by which the answer is late. Both are read for each question: change them at any time. `asked` counts the questions.
    """

    def __init__(self, address):
        self.names, self.faults, self.asked = {}, {}, collections.Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._socket.close()

    def _serve(self):
        while True:
            try:
                query, asker = self._socket.recvfrom(4096)
            except OSError:
                return
            name, kind, question = _question(query)
            self.asked[name] += 1
            fault = next((fault for end, fault in list(self.faults.items()) if name == end or name.endswith(f".{end}")), None)
            if fault == "silent":
                continue
            answer = self._answer(query, name, kind, question, fault)
            if isinstance(fault, (int, float)):
                late = threading.Timer(fault, self._send, (answer, asker))
                late.daemon = True
                late.start()
            else:
                self._send(answer, asker)

    def _answer(self, query, name, kind, question, fault):
        known = self.names.get(name)
        code = {"servfail": _SERVFAIL, "nxdomain": _NXDOMAIN}.get(fault, _NO_ERROR if known is not None else _NXDOMAIN)
        records = []
        for address in map(ipaddress.ip_address, known or [] if code == _NO_ERROR else []):
            if kind == (_A if address.version == 4 else _AAAA):
                records.append(struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(address.packed)) + address.packed)
        flags = 0x8580 | code
        return query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + question + b"".join(records)

    def _send(self, answer, asker):
        try:
            self._socket.sendto(answer, asker)
        except OSError:
            pass


def _question(query):
    """The name, its kind, and the bytes of both."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    return ".".join(labels).lower(), struct.unpack_from("!H", query, at + 1)[0], query[12:at + 5]
