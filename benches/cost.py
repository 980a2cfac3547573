#!/usr/bin/env python3
"""What watching costs a message: instructions (callgrind) and processor time (interleaved pairs) of 128-byte appends.

    benches/cost.py                   everything: callgrind, a quarter of an hour, then processor time; tables in Markdown
    benches/cost.py --pairs 5         fewer than 15 interleaved pairs of each
    benches/cost.py --only callgrind  or: pairs
    benches/cost.py --binary PATH     another rafthttp than target/release/rafthttp

Compared are metrics on (read and written out each second as a scrape does) with metrics off, and one message in a
thousand traced with none. The ledger that metrics are read from is part of the transport and is kept in both: what there is
to turn off is the reading. Needs valgrind for the instructions; Python's standard library alone.

Exit status 1 when a bound is broken: metrics 3 %, tracing 10 % more, and no hash at all at a ratio of 0.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from medians import interval
from sides import ROOT, clean_environment, free_ports

SIZE, WINDOW = 128, 2048
# Processor time of a run is some seconds; of callgrind's the difference of a long and a short one counts, so that starting
# and stopping do not.
MESSAGES, SHORT, LONG = 6_000_000, 50_000, 250_000
DEADLINE = 300
SETTINGS = {
    "nothing": {"metrics": "off", "trace-ratio": "0"},
    "metrics": {"metrics": "on", "trace-ratio": "0"},
    "traces": {"metrics": "on", "trace-ratio": "0.001"},
}
COMPARISONS = [
    ("metrics on against off", "nothing", "metrics", 1.03),
    ("tracing 1 in 1000 against metrics alone", "metrics", "traces", 1.10),
]


def until_listening(port, process):
    """Under valgrind a process takes its time to start."""
    end = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as asker:
            if asker.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


def run(binary, setting, messages, directory, before=((), ())):
    """One run of a sink and a source; their closing lines. `before` is what stands before each command."""
    (port,), flags = free_ports(1), ["--log", "error"]
    for name, value in setting.items():
        flags += [f"--{name}", value]
    sink = [*before[0], binary, "bench", "sink", "--listen", f"127.0.0.1:{port}", "--data-dir", directory, *flags]
    source = [*before[1], binary, "bench", "source", "--to", f"127.0.0.1:{port}", "--work", "append", "--size", SIZE,
              "--window", WINDOW, "--messages", messages, *flags]
    processes, outcomes = [], []
    try:
        for command in (sink, source):
            if processes:
                until_listening(port, processes[0])
            processes.append(subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE,
                                              stderr=subprocess.PIPE, text=True, env=clean_environment()))
        for process in processes:
            outcomes.append(process.communicate(timeout=DEADLINE))
        if any(process.returncode for process in processes):
            raise RuntimeError("\n".join(f"{process.args}\nexit status {process.returncode}: {err.strip()[-500:]}"
                                         for process, (_, err) in zip(processes, outcomes)))
        return [json.loads(out.strip().splitlines()[-1]) for out, _ in outcomes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


class Profile:
    """Instructions of one process, all of them and those that came from files of a name."""

    def __init__(self, path, name="xxh3"):
        self.total = self.named = 0
        names, current, skip = {}, "", False
        for line in path.read_text(errors="replace").splitlines():
            if found := re.match(r"(fl|fi|fe)=\((\d+)\)(?: (.*))?$", line):
                if found[3]:
                    names[found[2]] = found[3]
                current = names.get(found[2], "")
            elif line.startswith("calls="):
                skip = True  # the next line is what the callee cost
            elif re.match(r"[0-9+*-]", line):
                cost = line.split()
                if not skip and len(cost) > 1:
                    self.total += int(cost[1])
                    self.named += int(cost[1]) if name in current else 0
                skip = False


def profiled(binary, setting, messages, directory):
    """The sink's profile and the source's, each from a run of its own: beside one that is slow, the other is in time."""
    profiles, path = [], pathlib.Path(directory) / "callgrind.out"
    valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={path}"]
    for before in ((valgrind, ()), ((), valgrind)):
        run(binary, setting, messages, directory, before)
        profiles.append(Profile(path))
    return profiles


def instructions(binary, setting, directory):
    """Instructions a message, sender and receiver together, and how many of them hash."""
    short, long = (profiled(binary, setting, messages, directory) for messages in (SHORT, LONG))
    total = sum(many.total - few.total for few, many in zip(short, long)) / (LONG - SHORT)
    return total, sum(many.named for many in long)


def processor(binary, setting, directory):
    """Processor time a message in nanoseconds, sender and receiver together."""
    return sum(side["cpu_seconds"] / side["messages"] for side in run(binary, setting, MESSAGES, directory)) * 1e9


def count_instructions(binary, directory, runs, broken):
    print("\n| instructions a message, sender and receiver | pairs | without | with | ratio (95 %) | bound |\n|---|---|---|---|---|---|")
    rounds = []
    for number in range(runs):
        print(f"{number + 1}/{runs} under callgrind", file=sys.stderr, flush=True)
        rounds.append({name: instructions(binary, setting, directory) for name, setting in SETTINGS.items()})
    for name, without, with_it, bound in COMPARISONS:
        pairs = [[counted[setting][0] for setting in (without, with_it)] for counted in rounds]
        few, many = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio, low, high = interval([pair[1] / pair[0] for pair in pairs])
        print(f"| {name} | {runs} | {few:.0f} | {many:.0f} | {ratio:.3f} ({low:.3f} – {high:.3f}) | {bound:.2f} |", flush=True)
        broken += [f"{name}: {ratio:.3f} of the instructions"] if ratio > bound else []
    for name, setting in SETTINGS.items():
        hashed = max(counted[name][1] for counted in rounds)
        if setting["trace-ratio"] == "0" and hashed:
            broken.append(f"{name}: {hashed} instructions of hashing at a ratio of 0")
        if setting["trace-ratio"] != "0" and not hashed:
            broken.append(f"{name}: no hash is seen where there must be one: the profile is not read right")


def compare_processor(binary, directory, count, broken):
    print("\n| processor time a message, sender and receiver | pairs | without | with | ratio (95 %) | bound |\n|---|---|---|---|---|---|")
    for name, without, with_it, bound in COMPARISONS:
        pairs = []
        for turn in range(count):
            # Whoever is first may find a colder machine.
            order = (without, with_it) if turn % 2 == 0 else (with_it, without)
            times = {setting: processor(binary, SETTINGS[setting], directory) for setting in order}
            pairs.append((times[without], times[with_it]))
        ratios = [with_time / without_time for without_time, with_time in pairs]
        few, many = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio, low, high = interval(ratios)
        print(f"| {name} | {count} | {few:.1f} ns | {many:.1f} ns | {ratio:.3f} ({low:.3f} – {high:.3f}) | {bound:.2f} |", flush=True)
        broken += [f"{name}: {ratio:.3f} of the processor time"] if ratio > bound else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", choices=["callgrind", "pairs"])
    parser.add_argument("--binary", default=ROOT / "target/release/rafthttp")
    arguments = parser.parse_args()
    if not os.access(arguments.binary, os.X_OK):
        sys.exit(f"{arguments.binary} is not here: cargo build --release")
    broken = []
    with tempfile.TemporaryDirectory(prefix="rafthttp-cost-") as directory:
        if arguments.only != "pairs":
            if shutil.which("valgrind"):
                count_instructions(arguments.binary, directory, arguments.pairs, broken)
            else:
                print("not run: instructions a message: there is no valgrind")
        if arguments.only != "callgrind":
            compare_processor(arguments.binary, directory, arguments.pairs, broken)
    for line in broken:
        print(f"broken: {line}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
