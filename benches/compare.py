#!/usr/bin/env python3
"""Compares this transport with etcd's own rafthttp (Go), in interleaved pairs on one machine.

    benches/compare.py                    every row, 15 pairs each; a table in Markdown at the end
    benches/compare.py --only append      the rows whose name contains "append"
    benches/compare.py --only interop     ours at one end, etcd's at the other, each way, beside etcd at both
    benches/compare.py --pairs 5          fewer pairs
    benches/compare.py --table            only the table of what is recorded
    benches/compare.py --fresh            forgets what is recorded

Each run is written down as it ends (target/compare/results.jsonl), so an interrupted comparison goes on where it was.
Needs Go (etcd's side), rustc, openssl and taskset; Python's standard library alone.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import sides
from pairs import Pairs, cost, highest, markdown, median, rate, ratio
from sides import DEADLINE, ETCD, KIB, MIB, ROOT, Row, Sides, at, clean_environment, free_ports, pin

WORK = ROOT / "target" / "compare"
RESULTS = WORK / "results.jsonl"
SMALL = 128
# The bytes of a ping over a bare connection: about a frame with a message without entries.
PING_BYTES = 64


def rows():
    plain = [
        Row("append 128 B, window 2048", "append", SMALL, 2048, 6_000_000, 1_200_000),
        Row("append 128 B, window 32", "append", SMALL, 32, 700_000, 300_000),
        Row("append 64 KiB, window 256", "append", 64 * KIB, 256, 150_000, 40_000),
        Row("append 1 MiB, window 16", "append", MIB, 16, 8_000, 2_000),
        Row("ping", "ping", 0, 1, 15_000, 15_000),
        Row("ping, pinned", "ping", 0, 1, 15_000, 15_000, pinned=True),
        Row("snapshot 1 GiB", "snapshot", MIB, 1, 1024, 1024),
    ]
    tls = [
        Row("mTLS " + row.name, row.work, row.size, row.window, row.ours // 2 if row.work == "append" else row.ours,
            row.etcd // 2 if row.work == "append" else row.etcd, row.pinned, tls=True)
        for row in plain
    ]
    return plain + tls + interop_rows([row for row in plain + tls if not row.pinned])


def interop_rows(all_rows):
    """A Rust member in an etcd cluster must not be the slow one, whichever end it is."""
    return [
        Row(f"interop {row.name}, {way}", row.work, row.size, row.window, row.etcd, row.etcd, tls=row.tls, ends=ends)
        for row in all_rows
        for ends, way in (("source", "ours → etcd"), ("sink", "etcd → ours"))
    ]


class Bench(Sides):
    def __init__(self, ours, gopeer, rawtcp, certificates, directory):
        super().__init__(ours, gopeer, directory, certificates)
        self.rawtcp = rawtcp

    def run_raw(self, row):
        """The row's bytes over a bare TCP connection. A window of small messages goes there and back in one piece."""
        if row.work == "snapshot":
            copy = [self.rawtcp, "copy", self.directory, str(row.size * row.ours)]
            done = subprocess.run(copy, capture_output=True, text=True, timeout=DEADLINE, check=True)
            return {**json.loads(done.stdout), "messages": row.ours}
        is_stream = row.size >= KIB
        size = row.size if is_stream else max(row.size * row.window, PING_BYTES)
        count = row.ours if is_stream else row.ours // row.window
        with subprocess.Popen(pin(1, row.pinned) + [self.rawtcp, "serve"], stdout=subprocess.PIPE, text=True) as server:
            try:
                ask = [self.rawtcp, "stream" if is_stream else "ping", server.stdout.readline().strip(), str(size), str(count)]
                done = subprocess.run(pin(0, row.pinned) + ask, capture_output=True, text=True, timeout=DEADLINE, check=True)
            finally:
                server.kill()
        told = json.loads(done.stdout)
        return {"seconds": told["seconds"], "messages": row.ours, "p50": told.get("p50_us"), "p99": told.get("p99_us")}

    def idle_ours(self, peers):
        done = subprocess.run([self.ours, "bench", "idle", "--peers", str(peers), "--to", "127.0.0.1:1", "--log", "off"],
                              capture_output=True, text=True, timeout=DEADLINE, check=True, env=clean_environment())
        line = json.loads(done.stdout)
        return {"cpu": line["cpu_seconds"], "rss": line["rss_bytes"], "rss_peak": line["peak_rss_bytes"]}

    def idle_etcd(self, peers):
        port, = free_ports(1)
        done = subprocess.run([self.gopeer, "-role", "idle", "-peers", str(peers), "-peer", "127.0.0.1:1", "-local",
                               at(port)], capture_output=True, text=True, timeout=DEADLINE, check=True)
        line = json.loads(done.stdout.strip().splitlines()[-1])
        return {"cpu": line["cpu_10s"], "rss": line["rss_kb"] * KIB}


def make_certificates(directory):
    """A CA and one certificate for 127.0.0.1, for both ends."""
    certificate, key, ca = directory / "peer.pem", directory / "peer-key.pem", directory / "ca.pem"
    if certificate.exists():
        return str(certificate), str(key), str(ca)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ca.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ca\nprompt=no\n[dn]\nCN=compare\n"
        "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n")
    (directory / "peer.ext").write_text(
        "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl = lambda *arguments: subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
    openssl("req", "-x509", "-days", "30", "-config", directory / "ca.cnf", *curve, "-keyout", directory / "ca-key.pem",
            "-out", ca)
    openssl("req", "-new", "-subj", "/CN=peer", *curve, "-keyout", key, "-out", directory / "peer.csr")
    openssl("x509", "-req", "-days", "30", "-in", directory / "peer.csr", "-CA", ca, "-CAkey", directory / "ca-key.pem",
            "-CAcreateserial", "-extfile", directory / "peer.ext", "-out", certificate)
    return str(certificate), str(key), str(ca)


def build():
    """Everything that is measured."""
    WORK.mkdir(parents=True, exist_ok=True)
    ours, gopeer = sides.build()
    rawtcp, source = WORK / "rawtcp", pathlib.Path(__file__).parent / "compare" / "rawtcp.rs"
    if not rawtcp.exists() or rawtcp.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["rustc", "-O", "--edition", "2024", "-o", rawtcp, source], check=True)
    return ours, gopeer, str(rawtcp)


def has_raw(row):
    """With a large window of small messages, a bare connection would be asked how fast it copies, and ours encodes."""
    return not row.tls and row.ends == "ours" and not (row.size == SMALL and row.window > 32)


def measure(bench, results, wanted, pairs, idle_pairs, idle_peers):
    for pair in range(pairs):
        for row in wanted:
            runs = [("ours", lambda: bench.run_ours(row)), ("etcd", lambda: bench.run_etcd(row))]
            if has_raw(row):
                runs.append(("raw", lambda: bench.run_raw(row)))
            results.measure(row.name, pair, pairs, runs)
    for pair in range(idle_pairs):
        runs = [("ours", lambda: bench.idle_ours(idle_peers)), ("etcd", lambda: bench.idle_etcd(idle_peers))]
        results.measure(f"idle {idle_peers}", pair, idle_pairs, runs)


def table(results, wanted, idle_peers):
    head = ["work", "pairs", "etcd " + ETCD, "ours", "ours / etcd (95 %)", "CPU a message, ours / etcd (95 %)",
            "peak MiB ours, source + sink", "peak MiB etcd"]
    lines = []
    for row in wanted:
        pairs = results.of(row.name)
        if not pairs:
            continue
        memory = [f"{highest(pairs, 'ours', 'rss_source')} + {highest(pairs, 'ours', 'rss_sink')}",
                  f"{highest(pairs, 'etcd', 'rss_source')} + {highest(pairs, 'etcd', 'rss_sink')}"]
        processor = ratio(pairs, "ours", "etcd", cost)
        add = lambda name, etcd, ours, factor, cpu: lines.append([name, str(len(pairs)), etcd, ours, factor, cpu, *memory])

        def add_raw(name, unit, value):
            if any("raw" in pair for pair in pairs):
                show = lambda who: f"{median(pairs, who, value):.0f} {unit}"
                lines.append([f"{name} against bare TCP", str(len(pairs)), f"TCP {show('raw')}", show("ours"),
                              ratio(pairs, "ours", "raw", value) + " of TCP", "–", *memory])

        if row.work == "ping":
            for percentile in ("p50", "p99"):
                value = lambda run: run[percentile]
                add(f"{row.name}, {percentile}", f"{median(pairs, 'etcd', value):.0f} µs",
                    f"{median(pairs, 'ours', value):.0f} µs", ratio(pairs, "ours", "etcd", value), processor)
                add_raw(f"{row.name}, {percentile}", "µs", value)
            continue
        unit, speed = ("k/s", lambda run: rate(run) / 1e3) if row.work == "append" and row.size < KIB else (
            "MB/s", lambda run: rate(run) * row.size / 1e6)
        add(row.name, f"{median(pairs, 'etcd', speed):.0f} {unit}", f"{median(pairs, 'ours', speed):.0f} {unit}",
            ratio(pairs, "ours", "etcd", speed), processor)
        add_raw(row.name, unit, speed)
    idle = results.of(f"idle {idle_peers}")
    if idle:
        show = lambda who: (f"{median(idle, who, lambda run: run['rss']) / MIB:.0f} MiB, "
                            f"{median(idle, who, lambda run: run['cpu'] / 10):.3f} cores")
        lines.append([f"{idle_peers} peers that do not answer", str(len(idle)), show("etcd"), show("ours"), "–", "–",
                      highest(idle, "ours", "rss_peak"), "–"])
    return markdown(head, lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", help="rows whose name contains this")
    arguments.add_argument("--pairs", type=int, default=15)
    arguments.add_argument("--idle-pairs", type=int, default=3)
    arguments.add_argument("--idle-peers", type=int, default=1000)
    arguments.add_argument("--table", action="store_true", help="only the table of what is recorded")
    arguments.add_argument("--fresh", action="store_true", help="forget what is recorded")
    flags = arguments.parse_args()
    wanted = [row for row in rows() if flags.only in row.name]
    if flags.fresh and RESULTS.exists():
        RESULTS.unlink()
    results = Pairs(RESULTS)
    if not flags.table:
        sides.need("cargo", "rustc", "go", "openssl", "taskset")
        ours, gopeer, rawtcp = build()
        with tempfile.TemporaryDirectory(prefix="compare-", dir=sides.memory_directory()) as directory:
            bench = Bench(ours, gopeer, rawtcp, make_certificates(WORK / "certificates"), directory)
            measure(bench, results, wanted, flags.pairs, flags.idle_pairs if flags.only in "idle" else 0, flags.idle_peers)
    print(table(results, wanted, flags.idle_peers))


if __name__ == "__main__":
    main()
