"""What a `/metrics` says, read."""

import re
import urllib.request

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            if found := _SAMPLE.match(line):
                name, labels, value = found.groups()
                self.samples.append((name, dict(_LABEL.findall(labels or "")), float(value)))

    def all(self, name, **labels):
        """The samples of a name that carry these labels, each with its labels and value."""
        return [(have, value) for named, have, value in self.samples
                if named == name and labels.items() <= have.items()]

    def sum(self, name, **labels):
        return sum(value for _, value in self.all(name, **labels))

    def value(self, name, **labels):
        """The value of the one sample, None when there is none."""
        found = self.all(name, **labels)
        assert len(found) <= 1, f"{name} {labels}: {len(found)} samples"
        return found[0][1] if found else None


def scrape(url, seconds=5):
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return Scrape(answer.read().decode())
