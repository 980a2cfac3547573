#!/usr/bin/env python3
"""Compares writes to `rafthttp node` with writes to etcd: three members on one disk, in interleaved pairs on one machine.

    benches/writes.py                      1, 64 and 256 writers, 15 pairs each; a table in Markdown at the end
    benches/writes.py --only "64 writers"  the rows whose name contains this
    benches/writes.py --to all             the writers spread over the members, not all at the leader
    benches/writes.py --pairs 5            fewer pairs
    benches/writes.py --ours PATH          a rafthttp that is built already; else `cargo build --release`
    benches/writes.py --table              only the table of what is recorded
    benches/writes.py --fresh              forgets what is recorded
    benches/writes.py --check              one short pair of each row, recorded nowhere: does all of it work?

A run starts three members with empty directories, waits until each is healthy and they have a leader, warms up, measures,
and stops them. Members have the defaults of their program, with metrics on; etcd's log is turned down to errors.

The load (benches/writes/src) is one program for both. A writer has one put in flight and sends the next when the last is
acknowledged. Keys and values are the same. It speaks HTTP/1.1 to ours and gRPC to etcd, by one library (hyper), on one
thread; the table says how much of a core it took. It is not etcd's own client, so that both sides pay the same for the
load. Each writer has a connection of its own. HTTP/2 carries many calls on one connection, so that etcd is measured with
few connections too (--few), and ours is compared with the faster.

Every acknowledged put must be an entry that was applied, or the run fails. Each run is written down as it ends
(target/compare/writes.jsonl), so an interrupted comparison goes on where it was; runs of another binary, or with other
settings, do not count. The directories must be on a disk: a file system in memory is refused, since it syncs nothing.
Needs Go (to build etcd) and cargo; Python's standard library alone. Linux: it reads /proc.
"""

import argparse
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "tests"))

from lab import Cluster, Lab, NotHere, tool, until  # noqa: E402
from lab.etcd import EtcdCluster  # noqa: E402
from medians import interval  # noqa: E402
from pairs import Pairs, markdown, median, ratio  # noqa: E402
from sides import ETCD, MIB, ROOT  # noqa: E402

WORK = ROOT / "target" / "compare"
RESULTS = WORK / "writes.jsonl"
WRITERS = (1, 64, 256)
MEMBERS = 3
# Not a disk: nothing is synced there.
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
SYNCS, PAGE = 100, 4096


class Ours:
    """`rafthttp node`."""

    protocol = "http"

    @staticmethod
    def cluster(lab):
        return Cluster(lab, MEMBERS)

    @staticmethod
    def is_healthy(node):
        return answers(f"{node.metrics}/readyz")


class Etcd:
    """etcd's server."""

    protocol = "grpc"

    @staticmethod
    def cluster(lab):
        return EtcdCluster(lab, ETCD, MEMBERS)

    @staticmethod
    def is_healthy(node):
        return answers(f"{node.client}/health")


def answers(url):
    """Whether this answers 200; if not, the error says what it answered."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url}: {error.code} {error.read().decode(errors='replace').strip()}") from error


def applied(node):
    """How many entries a member has applied; both programs have this metric."""
    return node.scrape().value("etcd_server_proposals_applied_total")


class Bench:
    """What does not change from run to run."""

    def __init__(self, load, flags):
        self.load, self.flags = load, flags

    def run(self, side, writers, connections):
        """Starts a cluster, writes to it, stops it. What was measured."""
        sync_us = median_sync_us(tempfile.gettempdir())
        with Lab() as lab:
            cluster = side.cluster(lab).start()
            for node in cluster:
                until(f"{node.name} is healthy", lambda node=node: side.is_healthy(node), 60)
            leader = cluster.leader()
            # All members in one order: the leader, and then, if the writers are spread, the others.
            to = [leader] + [node for node in cluster if node is not leader and self.flags.to == "all"]
            before = applied(leader)
            result = self.write(side, writers, connections, to, cluster)
            entries = applied(leader) - before
            # Puts of the warm-up are entries too.
            assert entries >= result["writes"], f"{result['writes']} puts were acknowledged, and {entries:.0f} entries applied"
            assert cluster.leader() is leader, "another leader than at the beginning: not a steady state"
            rss = max(peak_rss(node.process.pid) for node in cluster)
            for node in cluster:
                node.process.stop()
        return {**result, "rss": rss, "sync_us": sync_us}

    def write(self, side, writers, connections, to, cluster):
        arguments = [self.load, "--protocol", side.protocol, "--writers", writers, "--connections", connections,
                     "--value-bytes", self.flags.value_bytes, "--keys", self.flags.keys,
                     "--warm-up", self.flags.warm_up, "--seconds", self.flags.seconds]
        for node in to:
            arguments += ["--to", node.client.removeprefix("http://")]
        for node in cluster:
            arguments += ["--process", node.process.pid]
        done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False,
                              timeout=self.flags.warm_up + self.flags.seconds + 30)
        if done.returncode != 0:
            raise RuntimeError(f"{side.__name__}, {writers} writers: {done.stderr.strip()}")
        return json.loads(done.stdout)


def median_sync_us(directory):
    """What one append of a page and its fdatasync take on this disk, now."""
    with tempfile.TemporaryFile(dir=directory) as file:
        took = []
        for _ in range(SYNCS):
            begin = time.perf_counter()
            os.write(file.fileno(), b"\xa5" * PAGE)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1e6


def peak_rss(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


def file_system(directory):
    """The kind of file system that a directory is on: the mount with the longest path above it."""
    found = ("", "unknown")
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if directory.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]


def programs(writers, few):
    """Who is measured in a row: a name, the program, and how many connections."""
    found = [("ours", Ours, writers), ("etcd", Etcd, writers)]
    return found + [("etcd, few", Etcd, few)] if few < writers else found


def row_name(writers, to):
    name = "1 writer" if writers == 1 else f"{writers} writers"
    return name + (", spread over the members" if to == "all" else "")


def last_settings():
    """The settings of the run that was recorded last."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return json.loads(lines[-1])["settings"] if lines else None


def measure(bench, results, wanted):
    flags = bench.flags
    for pair in range(flags.pairs):
        for writers in wanted:
            runs = [(who, lambda side=side, connections=connections: bench.run(side, writers, connections))
                    for who, side, connections in programs(writers, flags.few)]
            results.measure(row_name(writers, flags.to), pair, flags.pairs, runs)


def check(bench, wanted):
    """One pair of each row; whether what was measured can be true."""
    for writers in wanted:
        for label, side, connections in programs(writers, bench.flags.few):
            run = bench.run(side, writers, connections)
            print(f"{row_name(writers, bench.flags.to)}, {label}: {json.dumps(run)}")
            assert run["connections"] == connections and run["writers"] == writers, run
            assert 0 < run["p50_us"] <= run["p99_us"] <= run["max_us"], run
            # In a closed loop, the latencies of a writer's puts fit into its time; half of them are the median or more.
            assert run["writes"] / 2 * run["p50_us"] <= writers * (run["seconds"] * 1e6 + run["max_us"]), run
            assert run["members_cpu_seconds"] > 0 and run["rss"] > 1 << 20, run


def rate(run):
    return run["writes"] / run["seconds"]


def table(results):
    head = ["writers", "pairs", "etcd " + ETCD, "ours", "ours / etcd (95 %)", "p50 ms, ours / etcd", "p99 ms, ours / etcd",
            "members' CPU µs a write, ours / etcd", "peak MiB of a member, ours / etcd", "the load's share of a core, ours / etcd"]
    lines, syncs = [], []
    for name in results.runs:
        pairs = results.of(name)
        if not pairs:
            continue
        # etcd at its best.
        best = max((who for who in ("etcd", "etcd, few") if any(who in pair for pair in pairs)),
                   key=lambda who: median(pairs, who, rate))
        pairs = [pair for pair in pairs if best in pair]
        connections = pairs[0][best]["connections"]
        on = f"{connections} connection{'s' if connections > 1 else ''}"
        beside = lambda form, value: " / ".join(f"{median(pairs, who, value):{form}}" for who in ("ours", best))
        lines.append([
            name, str(len(pairs)), f"{median(pairs, best, rate):.0f}/s ({on})", f"{median(pairs, 'ours', rate):.0f}/s",
            ratio(pairs, "ours", best, rate),
            beside(".2f", lambda run: run["p50_us"] / 1e3), beside(".2f", lambda run: run["p99_us"] / 1e3),
            beside(".0f", lambda run: run["members_cpu_seconds"] / run["writes"] * 1e6),
            beside(".0f", lambda run: run["rss"] / MIB), beside(".2f", lambda run: run["load_cpu_seconds"] / run["seconds"]),
        ])
        syncs += [run["sync_us"] for pair in pairs for run in pair.values()]
    if not syncs:
        return markdown(head, lines)
    middle, _, _ = interval(syncs)
    return (f"{markdown(head, lines)}\n\nAn append of 4 KiB and its fdatasync, before each run: {middle:.0f} µs "
            f"({min(syncs):.0f} – {max(syncs):.0f}).")


def build(ours):
    """Everything that is measured: returns our binary and the load."""
    tool("etcd", ETCD)
    if not ours:
        subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
        ours = ROOT / "target" / "release" / "rafthttp"
    os.environ["RAFTHTTP_BIN"] = str(ours)
    target = ROOT / "target" / "writes"
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", HERE / "writes" / "Cargo.toml",
                    "--target-dir", target], check=True)
    return pathlib.Path(ours), target / "release" / "rafthttp-writes"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", help="rows whose name contains this")
    arguments.add_argument("--pairs", type=int, default=15)
    arguments.add_argument("--to", choices=("leader", "all"), default="leader", help="where the writers' connections go (leader)")
    arguments.add_argument("--few", type=int, default=4, help="connections of etcd's second run, shared by all writers (4)")
    arguments.add_argument("--seconds", type=float, default=5, help="the measured time of a run (5)")
    arguments.add_argument("--warm-up", type=float, default=2, help="seconds before it (2)")
    arguments.add_argument("--value-bytes", type=int, default=128)
    arguments.add_argument("--keys", type=int, default=10_000, help="how many different keys there are (10000)")
    arguments.add_argument("--ours", type=pathlib.Path, metavar="PATH", help="a built rafthttp")
    arguments.add_argument("--data-dir", type=pathlib.Path, default=WORK, metavar="PATH",
                           help="where the members' directories are made and removed: a real disk (target/compare)")
    arguments.add_argument("--table", action="store_true", help="only the table of what is recorded")
    arguments.add_argument("--fresh", action="store_true", help="forget what is recorded")
    arguments.add_argument("--check", action="store_true", help="one pair of each row, recorded nowhere")
    flags = arguments.parse_args()
    wanted = [writers for writers in WRITERS if flags.only in row_name(writers, flags.to)]
    if flags.table:
        print(table(Pairs(RESULTS, last_settings())))
        return
    if not wanted:
        arguments.error(f"--only {flags.only!r}: expected a part of "
                        + ", ".join(repr(row_name(writers, flags.to)) for writers in WRITERS))
    flags.data_dir.mkdir(parents=True, exist_ok=True)
    kind = file_system(flags.data_dir.resolve())
    if kind in IN_MEMORY:
        arguments.error(f"--data-dir {flags.data_dir}: expected a disk, this is {kind}, which syncs nothing")
    # Where the laboratory makes its directories.
    tempfile.tempdir = str(flags.data_dir.resolve())
    try:
        ours, load = build(flags.ours)
        bench = Bench(load, flags)
        if flags.check:
            check(bench, wanted)
            return
        if flags.fresh:
            RESULTS.unlink(missing_ok=True)
        settings = {"ours": hashlib.sha1(ours.read_bytes()).hexdigest()[:12], "etcd": ETCD, "seconds": flags.seconds,
                    "warm_up": flags.warm_up, "value_bytes": flags.value_bytes, "keys": flags.keys, "few": flags.few}
        results = Pairs(RESULTS, settings)
        measure(bench, results, wanted)
        print(table(results))
    except NotHere as why:
        sys.exit(f"not run: {why}")
    except (AssertionError, RuntimeError, subprocess.SubprocessError) as why:
        sys.exit(f"failed: {why}; what is recorded stays, and the next start goes on from there")


if __name__ == "__main__":
    main()
