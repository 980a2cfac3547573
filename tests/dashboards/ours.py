"""The dashboards on a live cluster of ours: three members under load with TLS, frozen, killed, caught up by a snapshot."""

import re
import socket
import ssl
import time
import urllib.parse

import answers
import board
import pictures
from lab import Certificates, Cluster, Lab, Load, Prometheus, until

# Panels that are empty when all is well, and that nothing here makes otherwise.
HEALTHY = {
    "rafthttp-overview": {
        "110 A": "no rules are loaded, so no alert fires; the alerts have tests of their own",
        "210 A": "raft addresses no one whom the transport does not know",
    },
    "rafthttp-peer": {},
    "etcd-peers": {},
}

# With two members and the third as their peer chosen: what only the third, or a stranger, has to tell.
TWO_ONLY = {
    "rafthttp-overview": {},
    "rafthttp-peer": {"208 A": "only strangers' messages were rejected"},
    "etcd-peers": {
        "402 C": "the third was sent a snapshot and sent none",
        "403 B": "the third was sent a snapshot and sent none",
    },
}

ENTRIES = 100  # after which the log is cut: who missed more needs a snapshot


def run(check):
    with Lab() as lab:
        certificates = Certificates(lab, days=90)
        # Nobody listens there: what is traced is dropped, and counted.
        collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{lab.port()}", "OTEL_BSP_SCHEDULE_DELAY": "500"}
        cluster = Cluster(lab, tls=certificates, relays=True, environment=collector,
                          extra=["--snapshot-count", ENTRIES, "--log-retention-bytes", "0", "--snapshot-rate", "256KiB", "--trace-ratio", "0.05"]).start()
        leader = cluster.leader()
        start = time.time()
        prometheus = Prometheus(lab, cluster.targets()).start().up(3)
        cluster.linked()
        names = {node.id: node.name for node in cluster}
        with Load(cluster, rate=60, size=8 << 10):
            healthy(check, prometheus, names)
            follower = cluster.follower()
            frozen(check, prometheus, follower, names)
            killed(check, prometheus, cluster, follower)
            attacked(cluster, certificates, leader)
            settle(prometheus)
        ledger(check, prometheus, start)
        first_values(check, prometheus, cluster)
        everything(check, prometheus, cluster, follower, start)
        pictures.draw(check, lab, prometheus, start, follower.id)


def everything(check, prometheus, cluster, third, start):
    """Each query with All, and with values chosen."""
    for uid in board.UIDS:
        dashboard = board.load(uid)
        answers.all_answered(check, prometheus, dashboard, start, HEALTHY[uid])
        values = answers.variables_filled(check, prometheus, dashboard)
        check.equal(f"{uid}: the members offered", set(values["instance"]), set(cluster.targets()))
        check.equal(f"{uid}: the peers offered", set(values["peer"]), {node.id for node in cluster})
        if uid != "etcd-peers":
            check.equal(f"{uid}: peers are offered by name", {text.split()[0] for text in values["peer"].values()}, {"n1", "n2", "n3"})
        # Two members and the third as their peer: regular expressions as Grafana joins and escapes them.
        two = [re.escape(node.target).replace("\\", "\\\\") for node in cluster if node is not third]
        chosen = {"job": "rafthttp", "cluster": "", "instance": f"({'|'.join(two)})", "peer": third.id}
        answers.all_answered(check, prometheus, dashboard, start, {**HEALTHY[uid], **TWO_ONLY[uid]}, chosen, " of two members")


def healthy(check, prometheus, names):
    """Everyone hears everyone, by name."""
    expected = {(a, b): 4 if a == b else 3 for a in names.values() for b in names.values()}
    check("the matrix of a healthy cluster", lambda: until("all hear all", lambda: matrix(prometheus) == expected, 20))
    sums = {panel["id"]: panel for panel in board.panels(board.load("rafthttp-overview"))}
    leader = prometheus.query(board.asked(sums[104]["targets"][0]["expr"]))
    check("the leader is named", [labels.get("name") for labels, _ in leader if labels.get("name") in names.values()], leader)
    check.equal("no link is cut", value(prometheus, 102), 0)
    check.equal("no stream is down", value(prometheus, 103), 0)


def frozen(check, prometheus, follower, names):
    """SIGSTOP: whoever probes it sees it, and its own row is unknown."""
    others = set(names.values()) - {follower.name}
    follower.freeze()

    def seen():
        cells = matrix(prometheus)
        return all(cells.get((other, follower.name)) in (0, 1) for other in others) and \
            all(cells.get((a, b)) == 3 for a in others for b in others if a != b) and \
            cells.get((follower.name, follower.name)) == 5 and (follower.name, min(others)) not in cells

    check("the matrix of a frozen follower", lambda: until("it is seen", seen, 20))
    check("messages for a frozen follower are unconfirmed",
          lambda: until("they show", lambda: max((v for _, v in ask(prometheus, 207)), default=0) > 10, 20))
    check("links to a frozen follower are cut", lambda: until("both", lambda: value(prometheus, 102) == 2, 20))
    follower.thaw()
    check("the matrix recovers", lambda: until("all hear all", lambda: set(matrix(prometheus).values()) == {3, 4}, 40))


def killed(check, prometheus, cluster, follower):
    """kill -9, more writes than the log keeps, and a start on a slow link: a snapshot that takes its time."""
    follower.kill()
    leader = cluster.leader()
    before = leader.status()["commit"]
    until("the log has moved on", lambda: leader.status()["commit"] > before + 3 * ENTRIES, 240)
    check("streams to a dead follower are down", lambda: until("they show", lambda: value(prometheus, 103) >= 4, 20))
    follower.relay.delay(0.05)
    follower.start()
    until("a snapshot came", lambda: follower.scrape().sum("rafthttp_snapshots_total", direction="in", result="ok") > 0, 120)
    follower.relay.heal()
    cluster.linked(120)


def attacked(cluster, certificates, leader):
    """A stranger without a certificate, one with a certificate whom nobody knows, and certificates renewed."""
    address = urllib.parse.urlsplit(leader.listen)
    context = ssl.create_default_context(cafile=str(certificates.authority))
    for _ in range(2):
        try:
            with socket.create_connection((address.hostname, address.port), 5) as plain, \
                    context.wrap_socket(plain, server_hostname=address.hostname) as secured:
                secured.recv(1)
        except OSError:
            pass
    context.load_cert_chain(certificates.certificate, certificates.key)
    status = leader.status()
    # A heartbeat response (type 9, field 1) from member 7 (field 3) to the leader (field 2).
    message = b"\x08\x09\x10" + varint(int(status["id"], 16)) + b"\x18\x07"
    with socket.create_connection((address.hostname, address.port), 5) as plain, \
            context.wrap_socket(plain, server_hostname=address.hostname) as secured:
        secured.sendall(
            f"POST /raft HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/protobuf\r\n"
            f"X-Etcd-Cluster-ID: {status['cluster']}\r\nX-Server-From: 7\r\nX-Server-Version: 3.6.0\r\n"
            f"X-Min-Cluster-Version: 3.0.0\r\nContent-Length: {len(message)}\r\nConnection: close\r\n\r\n".encode() + message)
        secured.recv(4096)
    certificates.renew(days=60)
    until("the certificate is read again", lambda: leader.scrape().sum("rafthttp_tls_reloads_total", result="ok") > 0, 30)


def settle(prometheus):
    """Until the last of it has been scraped for a while."""
    known = time.time()
    until("a few scrapes more", lambda: prometheus.query(f"min(timestamp(rafthttp_build_info)) > {known + 4}"), 30)


def ledger(check, prometheus, start):
    """In every scrape of the whole run, faults and all, every message is in one place."""
    for target in panel_of(209)["targets"]:
        found = answers.over(prometheus, board.asked(target["expr"]), start)
        check(f"the ledger adds up in every scrape ({target['refId']})", found and all(number == 0 for _, number in found),
              sorted({number for _, number in found})[:5])


def first_values(check, prometheus, cluster):
    """A counter's first value counts: drops that came all at once are seen, though rate() sees none of them."""
    dropped = sum(node.scrape().sum("rafthttp_messages_dropped_total") for node in cluster)
    shown = value(prometheus, 105)
    check("all drops are seen, the first ones too", dropped and shown and 0.8 * dropped <= shown <= 1.3 * dropped, f"{shown} of {dropped}")


def panel_of(number, uid="rafthttp-overview"):
    return next(panel for panel in board.panels(board.load(uid)) if panel["id"] == number)


def ask(prometheus, number):
    """A panel's first query, now."""
    return prometheus.query(board.asked(panel_of(number)["targets"][0]["expr"]))


def value(prometheus, number):
    """The one value of a panel; None when it has none."""
    found = ask(prometheus, number)
    return found[0][1] if found else None


def matrix(prometheus):
    """The cells: from whom, to whom, and the state."""
    return {(labels["from"], labels["to"]): state for labels, state in ask(prometheus, 108)}


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])
