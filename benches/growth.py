#!/usr/bin/env python3
"""How speed and cost grow with the size of a message, the window, and the number of peers, beside etcd's own rafthttp (Go), in
interleaved pairs on one machine.

    benches/growth.py                     every table, 3 pairs of each row; Markdown at the end (half an hour)
    benches/growth.py --only peers        one of: size, window, peers, scrape
    benches/growth.py --pairs 5           more pairs
    benches/growth.py --binary PATH       another rafthttp than target/release/rafthttp, which is built first
    benches/growth.py --table             only the tables of what is recorded
    benches/growth.py --fresh             forgets what is recorded

Each run is written down as it ends (target/growth/results.jsonl), so an interrupted run goes on where it was. One source sends
to all peers, which are members in one other process: each has a transport, a port and a window of its own, and is sent the whole
load. Needs Go (etcd's side); Python's standard library alone.
"""

import argparse
import contextlib
import http.client
import pathlib
import resource
import statistics
import tempfile
import threading
import time

import sides
from pairs import Pairs, cost, highest, markdown, median, rate, ratio
from sides import DEADLINE, ETCD, KIB, MIB, ROOT, Row, Sides, at, free_ports

RESULTS = ROOT / "target" / "growth" / "results.jsonl"
SMALL = 128
# So many bytes are under way while the messages are large, and so many messages while they are small.
UNDER_WAY, WINDOW = 16 * MIB, 2048
# A leader's window for each of its followers. etcd's own is 512.
FOLLOWER_WINDOW = 256
# Messages of ours, and of etcd's, that take 1 to 3 s.
BY_WINDOW = {1: (20_000, 20_000), 4: (60_000, 50_000), 16: (300_000, 150_000), 64: (1_200_000, 400_000),
             256: (3_000_000, 800_000), 1024: (6_000_000, 1_200_000), 4096: (6_000_000, 1_200_000)}
SCRAPES = 5
# How long the connections are open before a scrape. etcd's round trips appear half a minute after its start
# (`statusMonitoringInterval`), ours with the first probe.
OUR_SETTLING, ETCD_SETTLING = 3, 35


def shown(size):
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB" if size >= KIB else f"{size} B"


def axes(scale):
    """By axis: its rows. `scale` is the share of the messages that are sent."""
    messages = lambda number: max(int(number * scale), 1)
    row = lambda name, size, window, ours, etcd, peers=1: Row(
        name, "append", size, window, messages(ours), messages(etcd), peers=peers)
    sizes = [16, 128, KIB, 8 * KIB, 64 * KIB, 512 * KIB, 8 * MIB]
    return {
        "size": [row(f"size {shown(size)}", size, max(4, min(WINDOW, UNDER_WAY // size)), min(6_000_000, 6_000 * MIB // size),
                     min(1_200_000, 1_500 * MIB // size)) for size in sizes],
        "window": [row(f"window {window}", SMALL, window, *BY_WINDOW[window]) for window in BY_WINDOW],
        "peers": [row(f"peers {peers}", SMALL, FOLLOWER_WINDOW, 4_000_000 / peers, 800_000 / peers, peers)
                  for peers in (1, 2, 4, 8, 16, 32, 64)],
        # Enough that every series of a peer is there, and that nothing depends on the speed.
        "scrape": [Row(f"scrape {peers}", "append", SMALL, 16, 64, 64, peers=peers) for peers in (1, 10, 100, 1000)],
    }


@contextlib.contextmanager
def running(command):
    process = sides.start(command)
    watchdog = threading.Timer(DEADLINE, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def scrape(port):
    """How long /metrics takes, until its last byte, and its length. Asked for without compression."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    begin, size = time.monotonic(), 0
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    while piece := answer.read(256 * KIB):
        size += len(piece)
    connection.close()
    if answer.status != 200 or size == 0:
        raise RuntimeError(f"/metrics answered {answer.status} with {size} bytes")
    return time.monotonic() - begin, size


class Growth(Sides):
    """`scale` shortens the time before a scrape too."""

    def __init__(self, ours, gopeer, directory, scale):
        super().__init__(ours, gopeer, directory)
        self.scale = min(scale, 1)

    def scraped(self, ends, port, settling):
        """Both ends run, and stay when everything is sent; then the sender's /metrics is read."""
        receives, sends = ends
        with running(receives), running(sends) as source:
            if not source.stdout.readline():
                raise RuntimeError(f"{' '.join(sends)[:1000]}\nended before it held: {source.stderr.read()[-500:]}")
            time.sleep(settling * self.scale)
            end = time.monotonic() + 10
            while True:
                try:
                    scrape(port)
                    break
                except ConnectionRefusedError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)
            scrapes = [scrape(port) for _ in range(SCRAPES)]
        return {"seconds": statistics.median(taken for taken, _ in scrapes), "bytes": scrapes[-1][1]}

    def scrape_ours(self, row):
        port, = free_ports(1)
        # Nobody else is to gather meanwhile.
        receives, sends = ([*command, "--metrics", "off"] for command in self.our_ends(row))
        return self.scraped((receives, [*sends, "--hold", at(port)]), port, OUR_SETTLING)

    def scrape_etcd(self, row):
        port, = free_ports(1)
        return self.scraped([[*command, "-hold", at(port)] for command in self.etcd_ends(row)], port, ETCD_SETTLING)

    def runs(self, axis, row):
        if axis == "scrape":
            return [("ours", lambda: self.scrape_ours(row)), ("etcd", lambda: self.scrape_etcd(row))]
        return [("ours", lambda: self.run_ours(row)), ("etcd", lambda: self.run_etcd(row))]


def load_table(results, axis, rows):
    by_bytes = axis == "size"
    unit = "MB/s" if by_bytes else "k/s"
    head = [axis, *(["window"] if by_bytes else []), "pairs", f"etcd {ETCD}, {unit}", f"ours, {unit}", "ours / etcd (95 %)",
            "CPU µs a message, source + sink: etcd", "ours", "ours / etcd (95 %)", "peak MiB, source + sink: etcd", "ours"]
    lines = []
    for row in rows:
        pairs = results.of(row.name)
        if not pairs:
            continue
        speed = lambda run: rate(run) * (row.size / 1e6 if by_bytes else 1e-3)
        each = lambda who: " + ".join(
            f"{median(pairs, who, lambda run: run[end] / run['messages']) * 1e6:.2f}" for end in ("cpu_source", "cpu_sink"))
        memory = lambda who: f"{highest(pairs, who, 'rss_source')} + {highest(pairs, who, 'rss_sink')}"
        lines.append([row.name.removeprefix(axis + " "), *([str(row.window)] if by_bytes else []), str(len(pairs)),
                      f"{median(pairs, 'etcd', speed):.0f}", f"{median(pairs, 'ours', speed):.0f}",
                      ratio(pairs, "ours", "etcd", rate), each("etcd"), each("ours"), ratio(pairs, "ours", "etcd", cost),
                      memory("etcd"), memory("ours")])
    return markdown(head, lines) if lines else ""


def scrape_table(results, rows):
    lines = []
    for row in rows:
        pairs = results.of(row.name)
        if not pairs:
            continue
        took = lambda who: f"{median(pairs, who, lambda run: run['seconds']) * 1e3:.1f}"
        size = lambda who: f"{median(pairs, who, lambda run: run['bytes']) / KIB:.0f}"
        a_peer = lambda who: f"{median(pairs, who, lambda run: run['bytes']) / KIB / row.peers:.1f}"
        lines.append([str(row.peers), str(len(pairs)), took("etcd"), took("ours"), size("etcd"), size("ours"), a_peer("etcd"),
                      a_peer("ours")])
    head = ["peers", "pairs", f"etcd {ETCD}, ms", "ours, ms", "etcd, KiB", "ours, KiB", "etcd, KiB a peer", "ours, KiB a peer"]
    return markdown(head, lines) if lines else ""


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", choices=axes(1), help="one table")
    arguments.add_argument("--pairs", type=int, default=3)
    arguments.add_argument("--binary", help="another rafthttp than target/release/rafthttp, which is built first")
    arguments.add_argument("--scale", type=float, default=1, help="the share of the messages that are sent; for trying it out")
    arguments.add_argument("--most-peers", type=int, default=1000, help="rows with more peers are left out")
    arguments.add_argument("--results", type=pathlib.Path, default=RESULTS, help="where each run is written down")
    arguments.add_argument("--table", action="store_true", help="only the tables of what is recorded")
    arguments.add_argument("--fresh", action="store_true", help="forget what is recorded")
    flags = arguments.parse_args()
    wanted = {axis: [row for row in rows if row.peers <= flags.most_peers] for axis, rows in axes(flags.scale).items()
              if flags.only in (None, axis)}
    if flags.fresh:
        flags.results.unlink(missing_ok=True)
    results = Pairs(flags.results)
    if not flags.table:
        sides.need("cargo", "go")
        ours, gopeer = (flags.binary, sides.gopeer()) if flags.binary else sides.build()
        # A thousand peers have six connections each, in one process.
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        with tempfile.TemporaryDirectory(prefix="growth-", dir=sides.memory_directory()) as directory:
            growth = Growth(ours, gopeer, directory, flags.scale)
            for pair in range(flags.pairs):
                for axis, rows in wanted.items():
                    for row in rows:
                        results.measure(row.name, pair, flags.pairs, growth.runs(axis, row))
    tables = [scrape_table(results, rows) if axis == "scrape" else load_table(results, axis, rows)
              for axis, rows in wanted.items()]
    print("\n\n".join(filter(None, tables)))


if __name__ == "__main__":
    main()
