"""The dashboards as the tests read them: their panels, their queries, and what Grafana puts into a query."""

import json
import pathlib

DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "dashboards"
UIDS = ("rafthttp-overview", "rafthttp-peer", "etcd-peers")

# What "All" is for each variable.
ALL = {"job": ".*", "cluster": ".*", "instance": ".*", "peer": ".*"}


def load(uid):
    """A dashboard."""
    return json.loads((DIRECTORY / f"{uid}.json").read_text())


def panels(dashboard):
    """Its panels, rows left out."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard):
    """Every query: its panel and its target."""
    return [(panel, target) for panel in panels(dashboard) for target in panel["targets"]]


def asked(expression, chosen=None, interval="10s"):
    """The expression as Prometheus gets it. `chosen` are the values of variables, as Grafana joins them."""
    for name, value in {**ALL, **(chosen or {})}.items():
        expression = expression.replace(f"${name}", value)
    expression = expression.replace("$__rate_interval", interval)
    assert "$" not in expression.replace('"$1"', ""), f"a variable is left: {expression}"
    return expression
