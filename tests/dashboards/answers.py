"""Whether a dashboard's queries are answered: a sample that is not NaN, at some time of a run."""

import math
import re
import time

import board


def over(prometheus, expression, start, end=None):
    """Every sample of a query over a run that is not NaN: labels and value."""
    result = prometheus._json("/api/v1/query_range", query=expression, start=start, end=end or time.time(), step=1)["result"]
    return [(series["metric"], float(value)) for series in result for _, value in series["values"] if not math.isnan(float(value))]


def all_answered(check, prometheus, dashboard, start, healthy, chosen=None, label=""):
    """Checks every query. `healthy` names those that have nothing to say, and why that is good."""
    for panel, target in board.queries(dashboard):
        named = f"{dashboard['uid']}{label}: panel {panel['id']} ({panel['title']}) {target['refId']}"
        expression = board.asked(target["expr"], chosen)

        def answered(expression=expression, number=f"{panel['id']} {target['refId']}"):
            assert over(prometheus, expression, start) or number in healthy, f"nothing: {expression}"

        check(f"{named}: is answered", answered)


def variables_filled(check, prometheus, dashboard):
    """What Grafana would offer for each variable; returns the values of each."""
    values = {}
    for variable in dashboard["templating"]["list"][1:]:
        asks = board.asked(variable["query"]["query"])
        values[variable["name"]] = found = offered(prometheus, asks, variable["regex"])
        named = f"{dashboard['uid']}: variable {variable['name']}"
        if variable["name"] == "cluster":
            check.equal(f"{named}: there is no such label, and All works", found, {})
        else:
            check(f"{named}: offers something", found, asks)
    return values


def offered(prometheus, asks, regex):
    """The values of a variable, each with the text that the reader sees."""
    kind, inner = re.fullmatch(r"(label_values|query_result)\((.*)\)", asks).groups()
    if kind == "label_values":
        selector, label = inner.rsplit(", ", 1)
        return {labels[label]: labels[label] for labels, _ in prometheus.query(selector) if label in labels}
    pattern = re.compile(regex.strip("/").replace("(?<", "(?P<"))
    found = {}
    for labels, value in prometheus.query(inner):
        # As Grafana writes a result: labels in Prometheus' order, which is the alphabet's.
        line = "{%s} %g" % (",".join(f'{name}="{labels[name]}"' for name in sorted(labels)), value)
        if match := pattern.search(line):
            found[match["value"]] = match["text"]
    return found
