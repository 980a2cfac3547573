"""The rules as they stand: promtool's checks and tests, runbooks, panels, and names that are exported."""

import json
import re
import subprocess

from lab import NotHere, repository, tool

RULES = repository / "dashboards/alerts/rafthttp.yaml"
TESTS = repository / "dashboards/alerts/tests"
RUNBOOKS = repository / "dashboards/alerts/runbooks"

# So much faster is the world of the live tests: a scrape each second in place of one each thirty.
FACTOR = 30
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?<=\[)(\d+)(ms|s|m|h|d)(?=[\]:])|(?<=for: )(\d+)(ms|s|m|h|d)$|(?<=:)(\d+)(ms|s|m|h|d)(?=\])", re.M)


def shortened(text, factor=FACTOR):
    """The same rules with every window and every `for` divided, and nothing else changed."""
    def divided(found):
        number, unit = [part for part in found.groups() if part]
        return f"{max(1, round(int(number) * _UNITS[unit] / factor))}s"
    return _DURATION.sub(divided, text)


def names():
    """The alerts' names, in order."""
    return list(dict.fromkeys(re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.M)))


def check(report):
    """Everything that needs no cluster."""
    try:
        _promtool(report)
    except NotHere as why:
        report.not_run("promtool's checks and tests of the rules", why)
    _annotations(report)
    _runbooks(report)
    _tests(report)
    _metrics(report)


def _promtool(report):
    _, promtool = tool("prometheus")
    done = _run(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES)
    report.check("promtool check rules, every lint fatal", done.returncode == 0, done.stdout)
    for test in sorted(TESTS.glob("*.yaml")):
        done = _run(promtool, "test", "rules", test)
        report.check(f"promtool test rules {test.stem}", done.returncode == 0, done.stdout)


def _run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def _blocks():
    """Name and text of each alert."""
    parts = re.split(r"^ +- (?=(?:alert|record): )", RULES.read_text(), flags=re.M)[1:]
    return [(part.split("\n", 1)[0].removeprefix("alert: "), part) for part in parts if part.startswith("alert: ")]


def _annotations(report):
    """Severity, summary, description with the value, and links that resolve."""
    home = re.search(r'^repository = "(.*)"$', (repository / "Cargo.toml").read_text(), re.M).group(1)
    panels = {}
    for file in (repository / "dashboards").glob("*.json"):
        dashboard = json.loads(file.read_text())
        panels[dashboard["uid"]] = {panel["id"]: panel["type"] for panel in _panels(dashboard["panels"])}
    for name, text in _blocks():
        def holds(name=name, text=text):
            assert re.search(r"^ +severity: (critical|warning|info)$", text, re.M), "its severity"
            assert re.search(r"^ +summary: \S", text, re.M), "its summary"
            assert re.search(r"^ +description: >-\n(?:.*\n)*?.*\{\{", text, re.M), "its description names nothing"
            url = re.search(r"^ +runbook_url: (\S+)$", text, re.M).group(1)
            path = url.removeprefix(f"{home}/blob/main/")
            assert path == f"dashboards/alerts/runbooks/{name}.md" and (repository / path).is_file(), url
            uid, panel = re.search(r"^ +dashboard: /d/([\w-]+)\?.*viewPanel=(\d+)$", text, re.M).groups()
            kind = panels.get(uid, {}).get(int(panel))
            assert kind and kind != "row", f"dashboard {uid} has no panel {panel}"
        report.check(f"{name}: annotations, and links that resolve", holds)


def _panels(panels):
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))


def _runbooks(report):
    pages = {page.stem: page.read_text() for page in RUNBOOKS.glob("*.md")}
    report.check("a runbook for each alert, and no other", set(pages) == set(names()), set(pages) ^ set(names()))
    for name, text in sorted(pages.items()):
        def holds(name=name, text=text):
            assert text.startswith(f"# {name}\n"), "its title"
            for part in ("**Means.**", "**Impact.**", "**Look.**", "**Silence**", "```promql"):
                assert part in text, f"no {part}"
            for link in re.findall(r"\]\((\w+)\.md\)", text):
                assert link in pages, f"links to {link}"
        report.check(f"{name}: its runbook", holds)
    table = set(re.findall(r"^\| \[(\w+)\]\(runbooks/\1\.md\)", (RUNBOOKS.parent / "README.md").read_text(), re.M))
    report.check("the README's table has every alert", table == set(names()), table ^ set(names()))


def _tests(report):
    """Each alert has a test file in which it fires, and does not fire on a restart or a removal."""
    files = {test.stem: test.read_text() for test in TESTS.glob("*.yaml")}
    report.check("a promtool test for each alert, and no other", set(files) == set(names()), set(files) ^ set(names()))
    for name, text in sorted(files.items()):
        cases = " ".join(re.findall(r"- name: (.*)$", text, re.M))
        fires = "exp_alerts:" in text
        report.check(f"{name}: tested to fire, and on restart or removal not to",
                     fires and ("restart" in cases or "roll-out" in cases or "removal" in cases or "removed" in cases), cases)


def _metrics(report):
    """What rules and runbooks ask for is exported, or recorded by the rules: the families are read from their source."""
    sources = [*(repository / "src").rglob("*.rs")]
    exported = set(re.findall(r'"((?:rafthttp|etcd_(?:network|server))_\w+)"', "\n".join(file.read_text() for file in sources)))
    recorded = set(re.findall(r"^ +- record: (\S+)$", RULES.read_text(), re.M))
    for file in [RULES, *sorted(RUNBOOKS.glob("*.md"))]:
        text = "\n".join(line for line in file.read_text().splitlines() if not line.lstrip().startswith("#"))
        asked = set(re.findall(r"(?<![\w:./])((?:\w+:)?(?:rafthttp|etcd_(?:network|server))_[a-z0-9_:]+)", text))
        plain = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in recorded and name not in exported else name
                 for name in asked}
        unknown = {name for name in plain if name not in exported | recorded}
        report.check(f"{file.name}: asks for what there is", not unknown, unknown)
