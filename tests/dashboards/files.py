"""What can be said of the files without running anything."""

import importlib
import json
import re
import subprocess
import sys

import board
from lab import repository, tool

# Of Prometheus' annotations, which Grafana keeps in a dashboard without having them in its schema.
NOT_IN_SCHEMA = {"useValueForTime", "titleFormat", "step"}


def run(check):
    generated = subprocess.run([board.DIRECTORY / "generate", "--check"], text=True, capture_output=True, check=False)
    check("the JSON and the table of panels are what source/ makes", generated.returncode == 0, generated.stdout + generated.stderr)
    present = {path.stem for path in board.DIRECTORY.glob("*.json")}
    check.equal("the files are named as their dashboards' UIDs", present, set(board.UIDS))
    dashboards = {uid: board.load(uid) for uid in board.UIDS}
    for uid, dashboard in dashboards.items():
        whole(check, uid, dashboard)
        for panel in board.panels(dashboard):
            one(check, uid, panel)
    links(check, dashboards)
    sys.path.insert(0, str(tool("python-packages", repository / "tests/dashboards/requirements.txt")))
    schema(check, dashboards)
    expressions(check, dashboards)


def whole(check, uid, dashboard):
    check.equal(f"{uid}: its UID", dashboard["uid"], uid)
    check(f"{uid}: has a title, a description and tags", all(dashboard[key] for key in ("title", "description", "tags")))
    check.equal(f"{uid}: follows the reader's time zone", dashboard["timezone"], "browser")
    check(f"{uid}: refreshes, is editable, for Grafana 11", dashboard["refresh"] and dashboard["editable"] and dashboard["schemaVersion"] >= 39)
    check(f"{uid}: nothing to fill in at the import", not any(key.startswith("__") for key in dashboard) and "id" not in dashboard)
    numbers = [panel["id"] for panel in dashboard["panels"]]
    check(f"{uid}: panel ids are unique", len(numbers) == len(set(numbers)), numbers)
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    check.equal(f"{uid}: its variables", names, ["datasource", "job", "cluster", "instance", "peer"])
    for variable in dashboard["templating"]["list"][1:]:
        named = f"{uid}: variable {variable['name']}"
        check(f"{named}: is described", variable["label"] and variable["description"])
        if variable["includeAll"]:
            check.equal(f"{named}: All matches an absent label too", variable["allValue"], ".*")
    strange = [source for source in sources(dashboard) if source != {"type": "prometheus", "uid": "${datasource}"}]
    check(f"{uid}: no data source but the variable's", not strange, strange)
    overlaps(check, uid, dashboard)


def sources(part):
    """Every data source that is named anywhere."""
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from sources(each)


def overlaps(check, uid, dashboard):
    taken = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["id"])
                if other != panel["id"] or x >= 24:
                    check(f"{uid}: panels {panel['id']} and {other} have room", False)
                    return
    check(f"{uid}: no panel lies on another", True)


def one(check, uid, panel):
    named = f"{uid}: panel {panel['id']} ({panel['title']})"
    defaults = panel["fieldConfig"]["defaults"]
    check(f"{named}: has a title and says what it shows", panel["title"] and len(panel.get("description", "")) > 10)
    check(f"{named}: has a unit", defaults.get("unit"))
    check(f"{named}: says what it means when there is nothing", defaults.get("noValue"))
    refs = [target["refId"] for target in panel["targets"]]
    check(f"{named}: its queries are told apart", refs and len(refs) == len(set(refs)), refs)
    if len(refs) > 1:
        legends = [target["legendFormat"] for target in panel["targets"]]
        check(f"{named}: so are their series", all(legends) and len(legends) == len(set(legends)), legends)


def links(check, dashboards):
    numbers = {uid: {panel["id"] for panel in dashboard["panels"]} for uid, dashboard in dashboards.items()}
    for uid, dashboard in dashboards.items():
        for target in sorted(set(re.findall(r'/d/([\w-]+)', json.dumps(dashboard)))):
            check(f"{uid}: links to a dashboard that is here: {target}", target in dashboards)
        for link in dashboard["links"]:
            shared = [other for other, each in dashboards.items() if set(link["tags"]) <= set(each["tags"])]
            check.equal(f"{uid}: its link {link['title']} finds all dashboards", shared, list(board.UIDS))
    for rules in sorted((board.DIRECTORY / "alerts").glob("*.yaml")):
        text = rules.read_text()
        linked = re.findall(r"/d/([\w-]+)\S*?viewPanel=(\d+)", " ".join(text.split("\n")))
        linked += [(uid, panel) for line in text.splitlines() for uid, panel in re.findall(r"/d/([\w-]+)\?.*viewPanel=(\d+)", line)]
        for uid, panel in sorted(set(linked)):
            check(f"{rules.name}: links to a panel that is there: {uid} {panel}", int(panel) in numbers.get(uid, ()))
        alerts = len(re.findall(r"^\s*- alert:", text, re.M))
        check(f"{rules.name}: each of its {alerts} alerts links to a panel", text.count("viewPanel=") >= alerts)


def schema(check, dashboards):
    """Grafana's own schema drops what it does not know: what comes back is compared with what went in."""
    encoder = importlib.import_module("grafana_foundation_sdk.cog.encoder").JSONEncoder
    importlib.import_module("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    model = importlib.import_module("grafana_foundation_sdk.models.dashboard").Dashboard
    for uid, dashboard in dashboards.items():
        back = json.loads(encoder().encode(model.from_json(dashboard)))
        differences = list(lost(dashboard, back))
        check(f"{uid}: every key is one of Grafana's", not differences, "; ".join(differences[:5]))


def lost(went, came, path=""):
    """Where what came back lacks or alters what went in."""
    if isinstance(went, dict) and isinstance(came, dict):
        for key, value in went.items():
            if key in came:
                yield from lost(value, came[key], f"{path}.{key}")
            elif key not in NOT_IN_SCHEMA or ".annotations." not in path:
                yield f"{path}.{key} is not in the schema"
    elif isinstance(went, list) and isinstance(came, list) and len(went) == len(came):
        for index, (first, second) in enumerate(zip(went, came)):
            yield from lost(first, second, f"{path}[{index}]")
    elif went != came:
        yield f"{path}: {went!r} became {came!r}"


def expressions(check, dashboards):
    parser = importlib.import_module("promql_parser")
    known = families()
    for uid, dashboard in dashboards.items():
        for panel, target in board.queries(dashboard):
            named = f"{uid}: panel {panel['id']} ({panel['title']}) {target['refId']}"
            expression = board.asked(target["expr"])

            def parses(expression=expression):
                try:
                    parser.parse(expression)
                except ValueError as error:
                    raise AssertionError(f"{error}: {expression}") from error

            check(f"{named}: parses", parses)
            names = set(re.findall(r"\b((?:rafthttp|etcd|process)_\w+)(?=[{\[ ,)])", expression))
            if uid == "etcd-peers":
                strange = {name for name in names if not name.startswith(("etcd_", "process_"))}
                check(f"{named}: asks for etcd's own metrics alone", not strange, strange)
            unknown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if not name.startswith("process_")} - known
            check(f"{named}: asks for metrics that there are", not unknown, unknown)


def families():
    """The names that the program has, by its source."""
    text = "".join(path.read_text() for path in sorted((repository / "src/metrics").rglob("*.rs")))
    return set(re.findall(r'"((?:rafthttp|etcd)_[a-z0-9_]+)"', text))
