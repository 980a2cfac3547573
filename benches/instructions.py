#!/usr/bin/env python3
"""Instructions of each hot path, by callgrind, held against benches/instructions.json.

    benches/instructions.py                  counts; exit status 1 when a path takes over 3 % more than the file says
    benches/instructions.py --renew          writes what it counts to the file: after a change that means it
    benches/instructions.py --binary PATH    this build of benches/instructions.rs, not the one that cargo makes
    benches/instructions.py --where PATH     which functions one path spends them in (encode, decode, queue, hand-over, gather)

A path is counted twice, with few rounds and with many: the difference is a message's, whatever it takes to start. Counts
of one build repeat to a thousandth; another compiler makes another build, and the file names its own. Needs valgrind.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = ROOT / "benches" / "instructions.json"
# Messages of a round, as benches/instructions.rs has it; of `gather`, a round is one scrape.
BATCH = 512
FEW, MANY = 20, 120
# A scrape takes as long as thousands of messages.
FEW_SCRAPES, MANY_SCRAPES = 2, 12
# What is counted, and per what; `make` is what the messages of `queue` take to make.
PATHS = {"encode": BATCH, "decode": BATCH, "queue": BATCH, "hand-over": BATCH, "gather": 1}
BOUND = 1.03


def cargo(*arguments):
    return [os.environ.get("CARGO", "cargo"), *arguments]


def built():
    """The benchmark, built as the profile says that Cargo.toml has for it."""
    command = cargo("build", "--profile", "instructions", "--locked", "--bench", "instructions", "--message-format", "json")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "instructions" and message.get("executable"):
            return message["executable"]
    sys.exit("cargo names no executable of benches/instructions.rs")


def callgrind(valgrind, binary, path, rounds, out="/dev/null"):
    # Variables that a library reads would be read in one run and not in another.
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", binary, path, str(rounds)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, timeout=300)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"{path} under callgrind: exit status {done.returncode}: {done.stderr.strip()[-500:]}")
    return int(found[1])


def instructions(valgrind, binary, path):
    few, many = (FEW_SCRAPES, MANY_SCRAPES) if path == "gather" else (FEW, MANY)
    counts = [callgrind(valgrind, binary, path, rounds) for rounds in (few, many)]
    return (counts[1] - counts[0]) / (many - few)


def counted(valgrind, binary):
    """Instructions of each path, a message or a scrape."""
    rounds = {path: instructions(valgrind, binary, path) for path in [*PATHS, "make"]}
    rounds["queue"] -= rounds["make"]
    return {path: round(rounds[path] / per, 1) for path, per in PATHS.items()}


def compiler():
    told = subprocess.run([os.environ.get("RUSTC", "rustc"), "--version", "--verbose"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    release, host = (re.search(rf"^{name}: (.*)$", told, re.M)[1] for name in ("release", "host"))
    return f"rustc {release}, {host}"


def where(valgrind, binary, path):
    with tempfile.TemporaryDirectory(prefix="rafthttp-instructions-") as directory:
        out = pathlib.Path(directory) / "callgrind.out"
        callgrind(valgrind, binary, path, MANY, out)
        subprocess.run(["callgrind_annotate", "--threshold=95", out], check=True)


def compare(now, kept):
    """A table of both; the paths that are dearer than they may be."""
    print("| path | file | now | ratio |\n|---|---|---|---|")
    dearer = []
    for path, count in now.items():
        ratio = count / kept[path]
        print(f"| {path} | {kept[path]:.1f} | {count:.1f} | {ratio:.3f} |")
        dearer += [path] if ratio > BOUND else []
    return dearer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renew", action="store_true")
    parser.add_argument("--binary")
    parser.add_argument("--where", choices=list(PATHS))
    arguments = parser.parse_args()
    asked = subprocess.run([ROOT / "tests/tools/valgrind"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if asked.returncode:
        sys.exit(f"not run: {asked.stderr.strip().splitlines()[-1]}")
    valgrind = asked.stdout.strip()
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    if not (arguments.renew or arguments.binary or arguments.where) and kept.get("compiler") != compiler():
        print(f"not run: instructions of the hot paths: {FILE.name} is of {kept.get('compiler')}, and this is {compiler()}")
        return
    binary = arguments.binary or built()
    if arguments.where:
        return where(valgrind, binary, arguments.where)
    now = counted(valgrind, binary)
    if arguments.renew:
        FILE.write_text(json.dumps({"compiler": compiler(), "instructions": now}, indent=2) + "\n")
        print(json.dumps(now))
        return
    dearer = compare(now, kept["instructions"])
    for path in dearer:
        print(f"dearer by more than 3 %: {path}. If it is meant: benches/instructions.py --renew")
    sys.exit(1 if dearer else 0)


if __name__ == "__main__":
    main()
