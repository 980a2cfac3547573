"""Runs of several sides in turn, written down as they end, so that an interrupted comparison goes on where it was."""

import json
import statistics
import sys

from medians import interval
from sides import MIB


class Pairs:
    """What is recorded in a file: by row and number of the pair, what each side did. Only runs with these settings count."""

    def __init__(self, path, settings=None):
        self.path, self.settings, self.runs = path, settings, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text().splitlines():
                self.keep(json.loads(line))

    def keep(self, run):
        if run.get("settings") != self.settings:
            return
        self.runs.setdefault(run["row"], {}).setdefault(run["pair"], {})[run["who"]] = run

    def of(self, name):
        """The pairs of a row of which both ours and etcd's have run."""
        return [pair for pair in self.runs.get(name, {}).values() if "ours" in pair and "etcd" in pair]

    def measure(self, name, pair, pairs, sides):
        """Runs what is missing of one pair. `sides` are names and what runs them."""
        # Who goes first takes turns: what one run leaves behind must not favour one side.
        turn = pair % len(sides)
        for who, run in sides[turn:] + sides[:turn]:
            if who not in self.runs.get(name, {}).get(pair, {}):
                print(f"{pair + 1}/{pairs} {name}: {who}", file=sys.stderr, flush=True)
                settings = {"settings": self.settings} if self.settings else {}
                result = {"row": name, "pair": pair, "who": who, **settings, **run()}
                with self.path.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                self.keep(result)


def rate(run):
    return run["messages"] / run["seconds"]


def cost(run):
    return run["cpu"] / run["messages"]


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


def markdown(head, rows):
    """A table; the cells of its rows are text."""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)])
