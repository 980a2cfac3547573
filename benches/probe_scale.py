#!/usr/bin/env python3
"""What `rafthttp probe` costs at scale: targets that listen on addresses of their own on loopback, each probed each second.

    benches/probe_scale.py                          1000 targets for a minute, target/release/rafthttp
    benches/probe_scale.py --targets 300 --for 20   less
    benches/probe_scale.py --check                  exit status 1 when it costs more than it may

One process answers for all targets; what it costs is not counted. Linux alone: it reads /proc.
"""

import argparse
import json
import multiprocessing
import os
import resource
import selectors
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import datetime, timezone

CLUSTER = "cdf818194e3a8c32"
TICKS = os.sysconf("SC_CLK_TCK")
# What its memory may grow by while it is measured, the histories of round trips (three minutes of them, under a kilobyte
# a target) among it.
GROWTH_KIB = 2048


def more_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def address(number):
    return f"127.1.{number // 250}.{number % 250 + 1}"


def answer_all(targets, ready):
    """Answers /raft/probing, /version and /members for every target."""
    more_files()
    selector = selectors.EpollSelector()
    listeners = []
    port = 0
    for number in range(targets):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address(number), port))
        port = port or listener.getsockname()[1]
        listener.listen(8)
        listener.setblocking(False)
        listeners.append(listener)
        selector.register(listener, selectors.EVENT_READ, None)
    members = json.dumps([
        {"id": number + 1, "peerURLs": [f"http://{address(number)}:{port}"], "name": f"m{number + 1}"}
        for number in range(targets)
    ]).encode()
    version = b'{"etcdserver":"3.6.16","etcdcluster":"3.6.0"}'
    head = "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: " + CLUSTER + "\r\nContent-Length: %d\r\n\r\n"
    fixed = {b"/members": (head % len(members)).encode() + members, b"/version": (head % len(version)).encode() + version}
    ready.send(port)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection, _ = key.fileobj.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, True)
                continue
            connection = key.fileobj
            try:
                request = connection.recv(4096)
                if not request:
                    raise ConnectionResetError
                path = request.split(b" ", 2)[1]
                answer = fixed.get(path)
                if answer is None:
                    body = b'{"OK":true,"Now":"%s"}\n' % datetime.now(timezone.utc).isoformat().encode()
                    answer = (head % len(body)).encode() + body
                connection.sendall(answer)
            except OSError:
                selector.unregister(connection)
                connection.close()


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


def samples(url, name):
    with urllib.request.urlopen(url + "/metrics", timeout=30) as scrape:
        lines = scrape.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--binary", default=os.path.join(root, "target/release/rafthttp"))
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--settle", type=int, default=90, metavar="SECONDS", help="until every connection has read one of everything")
    parser.add_argument("--for", dest="seconds", type=int, default=60, metavar="SECONDS")
    parser.add_argument("--scrape", type=int, default=15, metavar="SECONDS", help="how often /metrics is read meanwhile; 0: not at all")
    parser.add_argument("--check", action="store_true", help="exit status 1 when it costs more than it may")
    parser.add_argument("--cores", type=float, default=0.05, help="what it may cost, of one core: 0.05 is the goal")
    args = parser.parse_args()

    receive, ready = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=answer_all, args=(args.targets, ready), daemon=True)
    server.start()
    port = receive.recv()
    url = f"http://127.0.0.1:{free_port()}"
    probe = subprocess.Popen(
        [args.binary, "--log", "error", "probe", f"http://{address(0)}:{port}", "--listen-metrics-urls", url])
    try:
        end = time.monotonic() + 60
        while True:
            try:
                reached = sum(samples(url, "rafthttp_peer_reachable").values())
            except OSError:
                reached = 0
            if reached == args.targets:
                break
            if time.monotonic() > end or probe.poll() is not None:
                sys.exit(f"only {reached:.0f} of {args.targets} targets were reached within 60 s")
            time.sleep(1)
        time.sleep(args.settle)
        probes = sum(samples(url, "rafthttp_probe_duration_seconds_count").values())
        begin, cpu, memory = time.monotonic(), cpu_seconds(probe.pid), [rss_kib(probe.pid)]
        while time.monotonic() - begin < args.seconds:
            time.sleep(min(args.scrape or args.seconds, args.seconds))
            # Before the scrape, which takes some for a moment.
            memory.append(rss_kib(probe.pid))
            if args.scrape:
                samples(url, "rafthttp_peer_reachable")
        seconds = time.monotonic() - begin
        cores = (cpu_seconds(probe.pid) - cpu) / seconds
        results = samples(url, "rafthttp_probes_total")
        failed = sum(count for series, count in results.items() if 'result="ok"' not in series)
        probes = sum(samples(url, "rafthttp_probe_duration_seconds_count").values()) - probes
    finally:
        probe.terminate()
        probe.wait()
        server.terminate()
        server.join()
    growth = memory[-1] - memory[0]
    print(json.dumps({
        "targets": args.targets,
        "seconds": round(seconds, 1),
        "probes_per_second": round(probes / seconds, 1),
        "failed": failed,
        "cores": round(cores, 4),
        "rss_kib": memory,
        "growth_kib": growth,
    }))
    if args.check and (cores >= args.cores or growth > GROWTH_KIB or probes / seconds < 0.9 * args.targets):
        sys.exit(f"more than {args.cores} cores, {GROWTH_KIB} KiB more memory, or fewer than a probe a second of each target")


if __name__ == "__main__":
    main()
