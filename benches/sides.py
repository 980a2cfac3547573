"""The two sides of a comparison: `rafthttp bench`, and etcd's own rafthttp (tests/gopeer). A run is two processes, one of which
sends and one of which receives."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ETCD = "3.6.16"
# No run takes longer; etcd's side ends itself after 100 s.
DEADLINE = 110
KIB, MIB = 1 << 10, 1 << 20


class Row:
    """One work: its size and window, and how many messages to each peer make a run of 1 to 3 s."""

    def __init__(self, name, work, size, window, ours, etcd, pinned=False, tls=False, ends="ours", peers=1):
        self.name, self.work, self.size, self.window, self.peers = name, work, size, window, peers
        # What stands against etcd → etcd: "ours" at both ends, or ours as "source" or as "sink", etcd's at the other.
        self.ours, self.etcd, self.pinned, self.tls, self.ends = ours, etcd, pinned, tls, ends


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
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAFTHTTP_", "OTEL_"))}


def start(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment())


def run_both(first, second):
    """Runs two processes until both end; their last lines of standard output as JSON. Ends them if one hangs."""
    processes = []
    try:
        for command in (first, second):
            processes.append(start(command))
        outcomes = []
        for process, command in zip(processes, (first, second)):
            out, err = process.communicate(timeout=DEADLINE)
            if process.returncode != 0:
                shown = " ".join(map(str, command))[:1000]
                raise RuntimeError(f"{shown}\nexit status {process.returncode}: {err.strip()[-500:]}")
            outcomes.append(json.loads(out.strip().splitlines()[-1]))
        return outcomes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def pin(core, pinned):
    return ["taskset", "-c", str(core)] if pinned else []


def at(*ports):
    return ",".join(f"127.0.0.1:{port}" for port in ports)


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


class Sides:
    """Runs a row on either side. `certificates` are those of both ends of a row with TLS; `directory` takes snapshots."""

    def __init__(self, ours, gopeer, directory, certificates=None):
        self.ours, self.gopeer, self.directory, self.certificates = ours, gopeer, directory, certificates

    def our_tls(self, row):
        if not row.tls:
            return []
        certificate, key, ca = self.certificates
        return ["--peer-cert-file", certificate, "--peer-key-file", key, "--peer-trusted-ca-file", ca]

    def our_sink(self, row, *ports):
        return pin(1, row.pinned) + [self.ours, "bench", "sink", "--listen", at(*ports), "--data-dir", self.directory,
                                     "--log", "error"] + self.our_tls(row)

    def our_source(self, row, port, *to):
        return pin(0, row.pinned) + [self.ours, "bench", "source", "--listen", at(port), "--to", at(*to), "--work", row.work,
                                     "--size", str(row.size), "--window", str(row.window), "--messages", str(row.ours),
                                     "--log", "error"] + self.our_tls(row)

    def etcds(self, row, role, local, peer, *side):
        mode = {"append": "app", "ping": "ping", "snapshot": "snap"}[row.work]
        command = [self.gopeer, "-role", role, "-local", local, "-peer", peer, "-mode", mode, "-size", str(row.size),
                   "-n", str(row.etcd), "-win", str(row.window), *side]
        if row.tls:
            certificate, key, ca = self.certificates
            command += ["-cert", certificate, "-key", key, "-ca", ca]
        return pin(1 if role in ("recv", "sink") else 0, row.pinned) + command

    def our_ends(self, row):
        """The command that receives, and the command that sends. Ours at one end, or at both."""
        source, *sinks = free_ports(1 + row.peers)
        receives = (self.etcds(row, "sink", at(*sinks), at(source)) if row.ends == "source"
                    else self.our_sink(row, *sinks))
        sends = (self.etcds(row, "source", at(source), at(*sinks)) if row.ends == "sink"
                 else self.our_source(row, source, *sinks))
        return receives, sends

    def etcd_ends(self, row):
        source, *others = free_ports(1 + 2 * row.peers)
        sinks, acknowledgements = others[:row.peers], ("-side", at(*others[row.peers:]))
        return (self.etcds(row, "recv", at(*sinks), at(source), *acknowledgements),
                self.etcds(row, "send", at(source), at(*sinks), *acknowledgements))

    def run_ours(self, row):
        received, sent = run_both(*self.our_ends(row))
        return outcome(row.ours * row.peers, sent, received)

    def run_etcd(self, row):
        received, sent = run_both(*self.etcd_ends(row))
        return outcome(row.etcd * row.peers, sent, received)


def build():
    """Our binary and etcd's side."""
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return str(ROOT / "target" / "release" / "rafthttp"), gopeer()


def gopeer():
    """etcd's side."""
    built = subprocess.run([ROOT / "tests" / "tools" / "gopeer", ETCD], stdout=subprocess.PIPE, text=True)
    if built.returncode == 3:
        sys.exit("not run: etcd's side cannot be built")
    built.check_returncode()
    return built.stdout.strip()


def need(*tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        sys.exit(f"not run: {', '.join(missing)} missing")


def memory_directory():
    """Where memory is a file system, the disk is not what is measured; etcd's side chooses it by itself."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None
