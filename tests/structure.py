#!/usr/bin/env python3
"""Holds the shape of src: which module may name which, no circle between siblings, what comes past the world, and how long
files and functions get.

    tests/structure.py              reads src, prints each fault as file:line, and ends with 1 if there is one
    tests/structure.py --self-test  reads small trees of its own, each with one fault, and ends with 1 if it misses one
    tests/structure.py --graph      prints which module of the library's top level names which, and how often

An arrow goes from a file to the module whose item it names: by `use`, or by a path that begins with `crate::`, `super::`,
`self::` or, in the binary, `rafthttp::`. Re-exports are followed, so that an arrow ends where the item is written. Tests
(`#[cfg(test)]`) are not read: they may look at whatever they like. An arrow between a parent and its own child, either
way, is none: the parent is what its children share.
"""

import argparse
import collections
import pathlib
import re
import sys

# From the top down: each module may name those below it, never one above it or beside it.
#
# `ledger` (what is counted) names nothing but `wire` and `id`, and may be named by all others. `telemetry` is next: its
# spans and events carry the ledger's reasons. `tls` tells of its certificates' reloads by `telemetry`, and `dial` uses
# both. `metrics` gives names to what `transport` and `server` know. `watch` offers the checks of `admin`, as `node` does.
# `raft_rs` turns messages of `wire` into raft-rs's, for `node` alone. `world` (the seam to clock, chance, network and disk)
# names nothing of ours. `internals` shows tests what is not public; nothing names it.
LAYERS = [
    ["internals"],
    ["node", "watch"],
    ["admin"],
    ["metrics"],
    ["server"],
    ["transport"],
    ["dial"],
    ["tls"],
    ["telemetry"],
    ["ledger"],
    ["raft_rs"],
    ["wire"],
    ["id"],
    ["world"],
]

# What comes from outside of the process: paths that begin so, and calls. The library takes it from `world` alone.
OUTSIDE_PATHS = [("std", "fs"), ("tokio", "fs"), ("std", "thread"), ("rand",)]
OUTSIDE_CALLS = re.compile(r"\b(?:SystemTime::now|Tcp(?:Stream::connect|Listener::bind)|UdpSocket::bind|lookup_host|task::spawn_blocking)\b")
# It polls in an order that chance decides, and the chance is not the world's.
UNBIASED = re.compile(r"\bselect!\s*\{\s*(?!biased\b)(?=\S)")

# Files and folders that may take it past the world, each with the reason.
PAST_THE_WORLD = {
    "src/dial/resolver.rs": "the system's names: asked where the network is the system's",
    "src/telemetry/otlp.rs": "the exporter is the process's, not a member's",
    "src/telemetry/otlp/settings.rs": "the exporter is the process's, not a member's",
    "src/tls/": "certificates: rustls holds them against the system's time, too",
    "src/transport/snapshot.rs": "a file that the application has opened",
}

# Without tests.
FILE_LINES = 500
# From the line with `fn` to its last brace.
FUNCTION_LINES = 60

# Functions that may be longer, each with the reason: they are tables of states, and a cut would part what is read as one.
LONG_FUNCTIONS: dict[tuple[str, str], str] = {}

Arrow = collections.namedtuple("Arrow", "file line target")


def blank(text):
    """The text with each character but the ends of lines made a space, so that lines keep their numbers."""
    return re.sub(r"[^\n]", " ", text)


TOKENS = re.compile(
    r'//[^\n]*|/\*|(?:\b[bc]?r(?P<hashes>#*)")|\b[bc]?"|"|\'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\\'\n])\'', re.S
)


def without_text(source):
    """The source without its comments, strings and characters."""
    out, at = [], 0
    while found := TOKENS.search(source, at):
        out.append(source[at : found.start()])
        token, end = found.group(), found.end()
        if token == "/*":
            depth = 1
            while depth and (next_ := re.compile(r"/\*|\*/").search(source, end)):
                depth += 1 if next_.group() == "/*" else -1
                end = next_.end()
        elif found.group("hashes") is not None:
            close = source.find('"' + found.group("hashes"), end)
            end = len(source) if close < 0 else close + 1 + len(found.group("hashes"))
        elif token.endswith('"'):
            close = re.compile(r'(?:[^"\\]|\\.)*"', re.S).match(source, end)
            end = close.end() if close else len(source)
        out.append(blank(source[found.start() : end]))
        at = end
    out.append(source[at:])
    return "".join(out)


def block_end(code, start):
    """Where the item that begins at `start` ends: behind its last brace, or its semicolon."""
    depth = 0
    for found in re.compile(r"[(\[{}\]);,]").finditer(code, start):
        char = found.group()
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if char == "}" and depth <= 0 and not re.match(r"\s*;", code[found.end() :]):
                return found.end()
            if depth < 0:
                return found.start()
        elif depth == 0:
            return found.end()
    return len(code)


TEST = re.compile(r"#\[cfg\(\s*(?:test\b|all\(\s*test\b)[^\]]*\]")


def without_tests(code):
    """The code without what is compiled for tests alone."""
    at = 0
    while found := TEST.search(code, at):
        start = found.end()
        while attribute := re.compile(r"\s*#\[[^\]]*\]").match(code, start):
            start = attribute.end()
        end = block_end(code, start)
        code = code[: found.start()] + blank(code[found.start() : end]) + code[end:]
        at = end
    return code


def use_paths(tree, prefix=()):
    """The paths of a use tree, as (segments, the name that it has here)."""
    tree = tree.strip()
    if not tree:
        # Behind the last comma.
        return
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = tree.partition(" as ")
        segments = prefix + tuple(part.strip() for part in path.split("::") if part.strip())
        if segments and segments[-1] == "self" and len(segments) > 1:
            segments = segments[:-1]
        if segments:
            yield segments, alias.strip() or segments[-1]
        return
    head = prefix + tuple(part.strip() for part in tree[:brace].split("::") if part.strip())
    depth, start = 0, brace + 1
    for index in range(brace + 1, len(tree)):
        if tree[index] == "{":
            depth += 1
        elif tree[index] == "}":
            depth -= 1
        if (tree[index] == "," and depth == 0) or depth < 0:
            yield from use_paths(tree[start:index], head)
            start = index + 1
        if depth < 0:
            return


class Module:
    """A file, and what it names."""

    def __init__(self, path, file, source):
        self.path, self.file = path, file
        code = without_tests(without_text(source))
        self.children = [
            name.removeprefix("r#") for name in re.findall(r"^[^\S\n]*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", code, re.M)
        ]
        # Lines that hold nothing but tests are not counted.
        kept = zip(source.split("\n"), without_tests(only_comments(source)).split("\n"), strict=True)
        self.lines = sum(1 for was, now in kept if not was.strip() or now.strip()) - source.endswith("\n")
        self.functions = list(functions(code))
        code = re.sub(r"\bpub\s*\([^)]*\)", lambda found: blank(found.group()), code)
        self.items = set(re.findall(r"\b(?:struct|enum|union|fn|trait|type|const|static|macro_rules!)\s+(\w+)", code))
        self.names, self.globs, self.mentions = {}, [], []
        for found in re.finditer(r"\buse\s+([^;<>()]+);", code):
            for segments, name in use_paths(found.group(1)):
                at = found.start(1) + max(found.group(1).find(segments[-1]), 0)
                self.mentions.append((segments, line_of(code, at)))
                if name == "*":
                    self.globs.append(segments[:-1])
                elif name != "_":
                    self.names[name] = segments
        code = re.sub(r"\buse\s+[^;<>()]+;", lambda found: blank(found.group()), code)
        for found in re.finditer(r"(?<![\w:])(\w+)((?:\s*::\s*\w+)+)", code):
            segments = tuple(re.split(r"\s*::\s*", found.group()))
            # A name that was brought here by `use` has drawn its arrow there.
            if segments[0] not in self.names:
                self.mentions.append((segments, line_of(code, found.start())))
        self.outside = [
            ("::".join(segments), line)
            for segments, line in self.mentions
            if any(segments[: len(path)] == path for path in OUTSIDE_PATHS)
        ]
        self.outside += [(found.group(), line_of(code, found.start())) for found in OUTSIDE_CALLS.finditer(code)]
        self.outside += [("the chance of an unbiased select!", line_of(code, found.start())) for found in UNBIASED.finditer(code)]


def only_comments(source):
    """The source with its strings as they are, but nothing in comments that looks like code: for counting lines."""
    stripped = without_text(source)
    return "\n".join(
        code if code.strip() else re.sub(r"\S", ".", line)
        for line, code in zip(source.split("\n"), stripped.split("\n"), strict=True)
    )


def line_of(code, at):
    return code.count("\n", 0, at) + 1


def functions(code):
    """Each function's name, line and number of lines."""
    for found in re.finditer(r"\bfn\s+(\w+)", code):
        depth = 0
        for token in re.compile(r"[(\[\])]|[{;]").finditer(code, found.end()):
            if token.group() in "([":
                depth += 1
            elif token.group() in ")]":
                depth -= 1
            elif depth == 0:
                break
        else:
            continue
        if token.group() == "{":
            first, last = line_of(code, found.start()), line_of(code, block_end(code, token.start()) - 1)
            yield found.group(1), first, last - first + 1


class Crate:
    """The modules that a root file reaches."""

    def __init__(self, files, root, library=None):
        self.modules, self.library = {}, library
        base = root.rsplit("/", 1)[0]
        waiting = [((), root)]
        while waiting:
            path, file = waiting.pop()
            module = self.modules[path] = Module(path, file, files[file])
            for child in module.children:
                place = f"{base}/{'/'.join((*path, child))}.rs"
                if place in files:
                    waiting.append(((*path, child), place))

    def resolve(self, module, segments, seen=frozenset()):
        """The crate and module where what a path names is written; none if it is not ours."""
        if (module, segments) in seen:
            return None
        seen = seen | {(module, segments)}
        first, rest = segments[0], segments[1:]
        if first == "crate":
            at = ()
        elif first == "self":
            at = module
        elif first == "super":
            at = module[:-1]
            while rest and rest[0] == "super":
                at, rest = at[:-1], rest[1:]
        elif first == "rafthttp" and self.library:
            return self.library.resolve((), ("crate", *rest), seen)
        elif (*module, first) in self.modules:
            at, rest = module, segments
        elif rest and first != self.modules[module].names.get(first, (first,))[0]:
            return self.resolve(module, self.modules[module].names[first] + rest, seen)
        else:
            return None
        while rest and (*at, rest[0]) in self.modules:
            at, rest = (*at, rest[0]), rest[1:]
        here = self.modules.get(at)
        if here and rest and rest[0] not in here.items:
            if rest[0] in here.names:
                return self.resolve(at, here.names[rest[0]] + rest[1:], seen) or (self, at)
            for glob in here.globs:
                found = self.resolve(at, (*glob, rest[0]), seen)
                if found and rest[0] in found[0].modules[found[1]].items:
                    return found
        return (self, at)

    def arrows(self):
        """Each arrow within this crate, from a module to another, once for each line that draws it."""
        for path, module in self.modules.items():
            for segments, line in module.mentions:
                found = self.resolve(path, segments)
                if found and found[0] is self and found[1] != path:
                    yield path, Arrow(module.file, line, found[1])


def circles(edges):
    """The strongly connected sets of more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for next_ in sorted(edges.get(node, ())):
            if next_ not in index:
                visit(next_)
                low[node] = min(low[node], low[next_])
            elif next_ in stack:
                low[node] = min(low[node], index[next_])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def sibling_arrows(arrows):
    """Per parent, which child's folder names which other's: {parent: {(from, to): [arrow]}}."""
    levels = collections.defaultdict(lambda: collections.defaultdict(list))
    for path, arrow in arrows:
        shared = 0
        while shared < min(len(path), len(arrow.target)) and path[shared] == arrow.target[shared]:
            shared += 1
        if shared < len(path) and shared < len(arrow.target):
            levels[path[:shared]][path[shared], arrow.target[shared]].append(arrow)
    return levels


def each_file_once(arrows):
    """The first arrow of each file."""
    first = {}
    for arrow in sorted(arrows):
        first.setdefault(arrow.file, arrow)
    return first.values()


def faults_of_circles(crate, name):
    for parent, edges in sorted(sibling_arrows(crate.arrows()).items()):
        if name == "crate" and parent == ():
            # The layers leave no circle there.
            continue
        graph = collections.defaultdict(set)
        for start, end in edges:
            graph[start].add(end)
        for circle in circles(graph):
            where = "::".join((name, *parent))
            for (start, end), drawn in sorted(edges.items()):
                if start in circle and end in circle:
                    for arrow in each_file_once(drawn):
                        yield f"{arrow.file}:{arrow.line}: {start} → {end}: part of the circle {' ↔ '.join(circle)} in {where}"


def faults_of_layers(crate):
    rank = {module: at for at, layer in enumerate(LAYERS) for module in layer}
    for module in crate.modules[()].children:
        if module not in rank:
            yield f"{crate.modules[()].file}: the module {module} has no place in the table of tests/structure.py"
    for (start, end), drawn in sorted(sibling_arrows(crate.arrows())[()].items()):
        if start in rank and end in rank and rank[end] <= rank[start]:
            for arrow in each_file_once(drawn):
                side = "beside" if rank[end] == rank[start] else "above"
                yield f"{arrow.file}:{arrow.line}: {start} → {end}: {end} stands {side} {start}"


def faults_of_outside(crate, excused):
    for path, module in crate.modules.items():
        if path[:1] == ("world",) or not module.outside:
            continue
        if listed := [name for name in PAST_THE_WORLD if module.file == name or name.endswith("/") and module.file.startswith(name)]:
            excused.update(listed)
            continue
        for what, line in module.outside:
            yield f"{module.file}:{line}: {what} comes from outside of the process: world is asked for it"


def faults_of_sizes(crate, excused):
    for module in crate.modules.values():
        if module.lines > FILE_LINES:
            yield f"{module.file}:1: {module.lines} lines without its tests, more than {FILE_LINES}"
        for name, line, lines in module.functions:
            if lines > FUNCTION_LINES:
                if (module.file, name) in LONG_FUNCTIONS:
                    excused.add((module.file, name))
                else:
                    yield f"{module.file}:{line}: fn {name} has {lines} lines, more than {FUNCTION_LINES}"


def crates(files):
    library = Crate(files, "src/lib.rs")
    yield "crate", library
    for main in ("src/bin/rafthttp/main.rs", "src/main.rs"):
        if main in files:
            yield "main", Crate(files, main, library)


def faults(files):
    found, excused, past, read = [], set(), set(), set()
    for name, crate in crates(files):
        if name == "crate":
            found += faults_of_layers(crate)
            found += faults_of_outside(crate, past)
        found += faults_of_circles(crate, name)
        found += faults_of_sizes(crate, excused)
        read |= {module.file for module in crate.modules.values()}
    for file, name in sorted(set(LONG_FUNCTIONS) - excused):
        found.append(f"{file}: fn {name} is listed as a long function, and is none")
    for file in sorted(set(PAST_THE_WORLD) - past):
        found.append(f"{file}: is listed as one that takes something past the world, and is none")
    return found, read


# Trees with one fault each, and where it is to be found. The first has none.
FIXTURES = [
    (
        {
            "src/lib.rs": "pub mod id;\nmod wire;\nmod transport;\n#[cfg(test)]\nmod lab;\n",
            "src/id.rs": "pub struct MemberId;\n/// Not an arrow: crate::transport::Peer\npub const S: &str = \"crate::wire\";\n",
            "src/wire.rs": "use crate::id::MemberId;\n#[cfg(test)]\nmod tests { use crate::transport::Peer; }\n",
            "src/transport.rs": "mod peer;\nmod reader;\nuse peer::Peer;\npub struct Shared;\n",
            "src/transport/peer.rs": "use super::{Shared, reader::Reader};\npub struct Peer;\n",
            "src/transport/reader.rs": "use super::Shared;\npub(in crate::transport) struct Reader;\n",
            "src/lab.rs": "use crate::wire;\n" * 600,
        },
        None,
    ),
    ({"src/lib.rs": "mod id;\nmod wire;\n", "src/id.rs": "\nuse crate::wire::X;\n", "src/wire.rs": ""}, "src/id.rs:2"),
    (
        {"src/lib.rs": "mod id;\nmod wire;\n", "src/id.rs": "fn f() {\n    crate::wire::g();\n}\n", "src/wire.rs": ""},
        "src/id.rs:2",
    ),
    # By a whole path, in a file that brings other names of the crate here.
    (
        {
            "src/lib.rs": "mod id;\nmod wire;\nmod ledger;\n",
            "src/id.rs": "",
            "src/wire.rs": "use crate::{\n    id::{\n        A,\n    },\n};\nfn f() {\n    crate::ledger::g();\n}\n",
            "src/ledger.rs": "",
        },
        "src/wire.rs:7",
    ),
    # By a name that the crate's root exports.
    (
        {"src/lib.rs": "mod id;\nmod wire;\npub use wire::X;\n", "src/id.rs": "use crate::X;\n", "src/wire.rs": "pub struct X;"},
        "src/id.rs:1",
    ),
    (
        {"src/lib.rs": "mod node;\nmod watch;\n", "src/node.rs": "use crate::watch::{self};\n", "src/watch.rs": ""},
        "src/node.rs:1",
    ),
    ({"src/lib.rs": "mod unheard;\n", "src/unheard.rs": ""}, "src/lib.rs"),
    # A circle of two, one of its arrows by a name that the parent exports.
    (
        {
            "src/lib.rs": "mod watch;\n",
            "src/watch.rs": "mod hub;\nmod watcher;\nuse hub::Hub;\n",
            "src/watch/hub.rs": "\nuse super::watcher::Watcher;\npub struct Hub;\n",
            "src/watch/watcher.rs": "use super::Hub;\npub struct Watcher;\n",
        },
        "src/watch/hub.rs:2",
    ),
    # A circle of three, through a child's child, in the binary.
    (
        {
            "src/lib.rs": "",
            "src/bin/rafthttp/main.rs": "mod a;\nmod b;\nmod c;\n",
            "src/bin/rafthttp/a.rs": "mod inner;\n",
            "src/bin/rafthttp/a/inner.rs": "\n\nuse crate::{b::B, c};\n",
            "src/bin/rafthttp/b.rs": "use super::c::C;\n",
            "src/bin/rafthttp/c.rs": "use super::a;\n",
        },
        "src/bin/rafthttp/a/inner.rs:3",
    ),
    # Past the world: by a path that was brought here, and by a call. The world itself may, and so may the binary.
    (
        {
            "src/lib.rs": "mod id;\nmod world;\n",
            "src/id.rs": "use std::{\n    fs,\n    io,\n};\n",
            "src/world.rs": "use std::fs;\nfn f() { SystemTime::now(); }\n",
            "src/bin/rafthttp/main.rs": "use std::fs;\n",
        },
        "src/id.rs:2",
    ),
    ({"src/lib.rs": "use std::time::SystemTime;\nfn f() {\n    SystemTime::now();\n}\n"}, "src/lib.rs:3"),
    # Chance in what is polled first.
    ({"src/lib.rs": "fn f() {\n    tokio::select! {\n        biased;\n    }\n    tokio::select! {\n        a => b,\n    }\n}\n"}, "src/lib.rs:5"),
    ({"src/lib.rs": "// a line\n" * (FILE_LINES + 1)}, "src/lib.rs:1"),
    ({"src/lib.rs": "\nfn long() {\n" + "    f();\n" * (FUNCTION_LINES - 1) + "}\n"}, "src/lib.rs:2"),
]


def self_test():
    missed = 0
    for number, (files, expected) in enumerate(FIXTURES):
        found, _ = faults(files)
        found = [fault for fault in found if not fault.endswith("and is none")]
        right = not found if expected is None else any(fault.startswith(expected + ":") for fault in found)
        if not right:
            print(f"structure: tree {number}: expected {expected or 'no fault'}, found {found}", file=sys.stderr)
            missed += 1
    return missed


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--self-test", action="store_true")
    options.add_argument("--graph", action="store_true")
    options = options.parse_args()
    if self_test():
        return 1
    if options.self_test:
        print(f"structure: {len(FIXTURES)} trees judged rightly")
        return 0
    root = pathlib.Path(__file__).resolve().parent.parent
    files = {str(file.relative_to(root)): file.read_text() for file in sorted(root.glob("src/**/*.rs"))}
    if options.graph:
        library = dict(crates(files))["crate"]
        for (start, end), drawn in sorted(sibling_arrows(library.arrows())[()].items()):
            print(f"{start} → {end}: {len(set(drawn))}")
        return 0
    found, read = faults(files)
    for fault in found:
        print(f"structure: {fault}", file=sys.stderr)
    if found:
        print(f"structure: {len(found)} faults", file=sys.stderr)
        return 1
    print(f"structure: {len(read)} files without a fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
