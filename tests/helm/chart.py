"""The chart, rendered by both majors of helm, and what is in the rendering."""

import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/rafthttp"
HELMS = {"3": os.environ["HELM3"], "4": os.environ["HELM4"]}
VALUES = sorted(CHART.glob("ci/*-values.yaml"))
BINARY = pathlib.Path(os.environ.get("RAFTHTTP_BIN", ROOT / "target/debug/rafthttp"))

# The fast one, where it was built.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def helm(major, *arguments):
    return subprocess.run([HELMS[major], *map(str, arguments)], capture_output=True, text=True, cwd=CHART)


def template(*arguments, major="4", kubernetes="1.37.0", chart=CHART):
    return helm(major, "template", "release", chart, "--namespace", "space", "--kube-version", kubernetes, *arguments)


def render(*arguments, **how):
    done = template(*arguments, **how)
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}: {done.stderr}"
    return documents_of(done.stdout)


def documents_of(text):
    return [document for document in yaml.load_all(text, LOADER) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def one(documents, kind):
    found = of_kind(documents, kind)
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


def pods(documents):
    """The pod specs, with the labels that their pods have."""
    for document in documents:
        if document["kind"] == "Pod":
            yield document["metadata"]["labels"], document["spec"]
        elif "template" in document.get("spec", {}):
            template = document["spec"]["template"]
            yield template["metadata"]["labels"], template["spec"]


def serving(documents):
    """The pod spec of the members or watchers."""
    found = [spec for labels, spec in pods(documents) if labels["app.kubernetes.io/component"] in ("node", "probe")]
    assert len(found) == 1, len(found)
    return found[0]


def each_rendering(check):
    for values in VALUES:
        for major in HELMS:
            check(values, render("--values", values, major=major))
