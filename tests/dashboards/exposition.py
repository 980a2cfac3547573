"""What `/metrics` declares: families with their type, help, labels and buckets."""

import dataclasses
import re

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclasses.dataclass
class Family:
    """One family."""

    type: str = ""
    help: str = ""
    labels: set = dataclasses.field(default_factory=set)
    buckets: set = dataclasses.field(default_factory=set)


def families(*texts, prefix):
    """The families whose name begins so, of several scrapes together."""
    found = {}
    for text in texts:
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                _, kind, name, rest = line.split(" ", 3)
                if name.startswith(prefix):
                    setattr(found.setdefault(name, Family()), kind.lower(), rest)
            elif match := _SAMPLE.match(line):
                name = re.sub(r"_(bucket|sum|count)$", "", match[1]) if match[1] not in found else match[1]
                if name in found:
                    labels = dict(_LABEL.findall(match[2] or ""))
                    if "le" in labels:
                        found[name].buckets.add(float(labels.pop("le")))
                    found[name].labels |= labels.keys()
    return found
