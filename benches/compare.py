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
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile

from medians import interval

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / "target" / "compare"
RESULTS = WORK / "results.jsonl"
ETCD = "3.6.16"
# No run takes longer; etcd's side ends itself after 100 s.
DEADLINE = 110
KIB, MIB = 1 << 10, 1 << 20


class Row:
    """One line of the table: a work, its size and window, and how many messages make a run of 1 to 3 s."""

    def __init__(self, name, work, size, window, ours, etcd, pinned=False, tls=False, ends="ours"):
        self.name, self.work, self.size, self.window = name, work, size, window
        # What stands against etcd → etcd: "ours" at both ends, or ours as "source" or as "sink", etcd's at the other.
        self.ours, self.etcd, self.pinned, self.tls, self.ends = ours, etcd, pinned, tls, ends


def rows():
    plain = [
        Row("append 128 B, window 2048", "append", 128, 2048, 6_000_000, 1_200_000),
        Row("append 128 B, window 32", "append", 128, 32, 700_000, 300_000),
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


def free_ports(count):
    """Ports that were free a moment ago; all held until all are known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def clean_environment():
    """Ours without the variables that would be flags."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAFTHTTP_")}


def run_both(first, second):
    """Runs two processes until both end; their last lines of standard output as JSON. Ends them if one hangs."""
    processes = []
    try:
        for command in (first, second):
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                              env=clean_environment()))
        outcomes = []
        for process, command in zip(processes, (first, second)):
            out, err = process.communicate(timeout=DEADLINE)
            if process.returncode != 0:
                raise RuntimeError(f"{' '.join(map(str, command))}\nexit status {process.returncode}: {err.strip()[-500:]}")
            outcomes.append(json.loads(out.strip().splitlines()[-1]))
        return outcomes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def pin(core, pinned):
    return ["taskset", "-c", str(core)] if pinned else []


def at(port):
    return f"127.0.0.1:{port}"


def read(line):
    """What a side says of itself, in one shape: etcd's side has names of its own."""
    if line.get("impl") != "go":
        return line
    return {"seconds": line["secs"], "cpu_seconds": line["cpu"], "peak_rss_bytes": line["rss_mb"] * MIB,
            "p50_us": line.get("p50_us"), "p99_us": line.get("p99_us")}


def outcome(messages, source, sink):
    source, sink = read(source), read(sink)
    return {
        "seconds": source["seconds"], "messages": messages, "cpu": source["cpu_seconds"] + sink["cpu_seconds"],
        "cpu_source": source["cpu_seconds"], "cpu_sink": sink["cpu_seconds"],
        "rss_source": source["peak_rss_bytes"], "rss_sink": sink["peak_rss_bytes"],
        "p50": source.get("p50_us"), "p99": source.get("p99_us"),
    }


class Bench:
    def __init__(self, ours, gopeer, rawcopy, certificates, directory):
        self.ours, self.gopeer, self.rawcopy = ours, gopeer, rawcopy
        self.certificates, self.directory = certificates, directory

    def our_tls(self, row):
        if not row.tls:
            return []
        certificate, key, ca = self.certificates
        return ["--peer-cert-file", certificate, "--peer-key-file", key, "--peer-trusted-ca-file", ca]

    def our_sink(self, row, port):
        return pin(1, row.pinned) + [self.ours, "bench", "sink", "--listen", at(port), "--data-dir", self.directory, "--log",
                                     "error"] + self.our_tls(row)

    def our_source(self, row, port, to):
        return pin(0, row.pinned) + [self.ours, "bench", "source", "--listen", at(port), "--to", at(to), "--work", row.work,
                                     "--size", str(row.size), "--window", str(row.window), "--messages", str(row.ours),
                                     "--log", "error"] + self.our_tls(row)

    def etcds(self, row, role, port, peer, *side):
        mode = {"append": "app", "ping": "ping", "snapshot": "snap"}[row.work]
        command = [self.gopeer, "-role", role, "-local", at(port), "-peer", at(peer), "-mode", mode, "-size", str(row.size),
                   "-n", str(row.etcd), "-win", str(row.window), *side]
        if row.tls:
            certificate, key, ca = self.certificates
            command += ["-cert", certificate, "-key", key, "-ca", ca]
        return pin(1 if role in ("recv", "sink") else 0, row.pinned) + command

    def run_ours(self, row):
        """Ours at one end, or at both."""
        source, sink = free_ports(2)
        sinks = self.etcds(row, "sink", sink, source) if row.ends == "source" else self.our_sink(row, sink)
        sources = self.etcds(row, "source", source, sink) if row.ends == "sink" else self.our_source(row, source, sink)
        received, sent = run_both(sinks, sources)
        return outcome(row.ours, sent, received)

    def run_etcd(self, row):
        source, sink, side = free_ports(3)
        acknowledgements = ("-side", at(side))
        received, sent = run_both(self.etcds(row, "recv", sink, source, *acknowledgements),
                                  self.etcds(row, "send", source, sink, *acknowledgements))
        return outcome(row.etcd, sent, received)

    def run_raw(self, row):
        done = subprocess.run([self.rawcopy, self.directory, str(row.size * row.ours)], capture_output=True, text=True,
                              timeout=DEADLINE, check=True)
        seconds = json.loads(done.stdout)["seconds"]
        return {"seconds": seconds, "messages": row.ours}

    def idle_ours(self, peers):
        done = subprocess.run([self.ours, "bench", "idle", "--peers", str(peers), "--to", "127.0.0.1:1", "--log", "off"],
                              capture_output=True, text=True, timeout=DEADLINE, check=True, env=clean_environment())
        line = json.loads(done.stdout)
        return {"cpu": line["cpu_seconds"], "rss": line["rss_bytes"], "rss_peak": line["peak_rss_bytes"]}

    def idle_etcd(self, peers):
        port, = free_ports(1)
        done = subprocess.run([self.gopeer, "-role", "idle", "-peers", str(peers), "-peer", "127.0.0.1:1", "-local",
                               f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=DEADLINE, check=True)
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
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    gopeer = subprocess.run([ROOT / "tests" / "tools" / "gopeer", ETCD], stdout=subprocess.PIPE, text=True, check=True)
    rawcopy, source = WORK / "rawcopy", HERE / "compare" / "rawcopy.rs"
    if not rawcopy.exists() or rawcopy.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["rustc", "-O", "--edition", "2024", "-o", rawcopy, source], check=True)
    return str(ROOT / "target" / "release" / "rafthttp"), gopeer.stdout.strip(), str(rawcopy)


def record(name, pair, who, result):
    with RESULTS.open("a") as file:
        file.write(json.dumps({"row": name, "pair": pair, "who": who, **result}) + "\n")


def recorded():
    """By row and pair: what each side did."""
    runs = {}
    if RESULTS.exists():
        for line in RESULTS.read_text().splitlines():
            run = json.loads(line)
            runs.setdefault(run["row"], {}).setdefault(run["pair"], {})[run["who"]] = run
    return runs


def measure(bench, wanted, pairs, idle_pairs, idle_peers):
    runs = recorded()
    have = lambda name, pair, who: who in runs.get(name, {}).get(pair, {})
    for pair in range(pairs):
        for row in wanted:
            sides = [("ours", bench.run_ours), ("etcd", bench.run_etcd)]
            if row.work == "snapshot" and not row.tls and row.ends == "ours":
                sides.append(("raw", bench.run_raw))
            # Who goes first takes turns: what one run leaves behind must not favour one side.
            turn = pair % len(sides)
            for who, run in sides[turn:] + sides[:turn]:
                if not have(row.name, pair, who):
                    print(f"{pair + 1}/{pairs} {row.name}: {who}", file=sys.stderr, flush=True)
                    record(row.name, pair, who, run(row))
    for pair in range(idle_pairs):
        for who, run in (("ours", bench.idle_ours), ("etcd", bench.idle_etcd)):
            name = f"idle {idle_peers}"
            if not have(name, pair, who):
                print(f"{pair + 1}/{idle_pairs} {name}: {who}", file=sys.stderr, flush=True)
                record(name, pair, who, run(idle_peers))


def ratio(pairs, numerator, denominator, value):
    ratios = [value(pair[numerator]) / value(pair[denominator]) for pair in pairs if numerator in pair and denominator in pair]
    if not ratios:
        return "–"
    middle, low, high = interval(ratios)
    return f"{middle:.2f} ({low:.2f} – {high:.2f})"


def median(pairs, who, value):
    values = [value(pair[who]) for pair in pairs if who in pair]
    return statistics.median(values) if values else float("nan")


def highest(pairs, who, *names):
    values = [pair[who][name] for pair in pairs if who in pair for name in names if pair[who].get(name)]
    return f"{max(values) / MIB:.0f}" if values else "–"


def table(wanted, idle_peers):
    runs = recorded()
    head = ["work", "pairs", "etcd " + ETCD, "ours", "ours / etcd (95 %)", "CPU a message, ours / etcd (95 %)",
            "peak MiB ours, source + sink", "peak MiB etcd"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rate = lambda run: run["messages"] / run["seconds"]
    cost = lambda run: run["cpu"] / run["messages"]
    for row in wanted:
        pairs = [pair for pair in runs.get(row.name, {}).values() if "ours" in pair and "etcd" in pair]
        if not pairs:
            continue
        memory = [f"{highest(pairs, 'ours', 'rss_source')} + {highest(pairs, 'ours', 'rss_sink')}",
                  f"{highest(pairs, 'etcd', 'rss_source')} + {highest(pairs, 'etcd', 'rss_sink')}"]
        processor = ratio(pairs, "ours", "etcd", cost)
        add = lambda name, etcd, ours, factor, cpu: lines.append(
            "| " + " | ".join([name, str(len(pairs)), etcd, ours, factor, cpu, *memory]) + " |")
        if row.work == "ping":
            for percentile in ("p50", "p99"):
                value = lambda run: run[percentile]
                add(f"{row.name}, {percentile}", f"{median(pairs, 'etcd', value):.0f} µs",
                    f"{median(pairs, 'ours', value):.0f} µs", ratio(pairs, "ours", "etcd", value), processor)
        elif row.work == "append" and row.size < KIB:
            add(row.name, f"{median(pairs, 'etcd', rate) / 1e3:.0f} k/s", f"{median(pairs, 'ours', rate) / 1e3:.0f} k/s",
                ratio(pairs, "ours", "etcd", rate), processor)
        else:
            speed = lambda run: rate(run) * row.size / 1e6
            add(row.name, f"{median(pairs, 'etcd', speed):.0f} MB/s", f"{median(pairs, 'ours', speed):.0f} MB/s",
                ratio(pairs, "ours", "etcd", speed), processor)
            if any("raw" in pair for pair in pairs):
                add(row.name + " against a raw TCP copy", f"raw {median(pairs, 'raw', speed):.0f} MB/s",
                    f"{median(pairs, 'ours', speed):.0f} MB/s", ratio(pairs, "ours", "raw", speed) + " of raw", "–")
    idle = list(runs.get(f"idle {idle_peers}", {}).values())
    if idle:
        show = lambda who: (f"{median(idle, who, lambda run: run['rss']) / MIB:.0f} MiB, "
                            f"{median(idle, who, lambda run: run['cpu'] / 10):.3f} cores")
        lines.append(f"| {idle_peers} peers that do not answer | {len(idle)} | {show('etcd')} | {show('ours')} | – | – | "
                     f"{highest(idle, 'ours', 'rss_peak')} | – |")
    return "\n".join(lines)


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
    if not flags.table:
        missing = [tool for tool in ("cargo", "rustc", "go", "openssl", "taskset") if not shutil.which(tool)]
        if missing:
            sys.exit(f"not run: {', '.join(missing)} missing")
        ours, gopeer, rawcopy = build()
        # Where memory is a file system, the disk is not what is measured; etcd's side chooses it by itself.
        shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
        with tempfile.TemporaryDirectory(prefix="compare-", dir=shared) as directory:
            bench = Bench(ours, gopeer, rawcopy, make_certificates(WORK / "certificates"), directory)
            measure(bench, wanted, flags.pairs, flags.idle_pairs if flags.only in "idle" else 0, flags.idle_peers)
    print(table(wanted, flags.idle_peers))


if __name__ == "__main__":
    main()
