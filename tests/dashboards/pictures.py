"""The dashboards drawn by Grafana's own components, with the data of a live Prometheus: pictures to look at."""

import json
import os
import pathlib
import shutil
import subprocess
import time

import board
from checks import TIER_IS_ALL, not_run
from lab import NotHere, repository, tool

RENDER = pathlib.Path(__file__).resolve().parent / "render"
# What stands in the picture of a cluster that went through all of it, and would not if panels stayed empty.
WORDS = {
    "rafthttp-overview": ["Who hears whom", "hears", "n1", "n2", "n3", "no answer", "post_failed", "msgapp", "leads"],
    "rafthttp-peer": ["Reached by", "hears", "MsgApp", "pipeline", "p99"],
    "etcd-peers": ["Active peers", "active", "follows"],
}


def draw(check, lab, prometheus, start, peer):
    """Every dashboard, into target/dashboards. `peer` is whom rafthttp-peer is about."""
    if not TIER_IS_ALL:
        return not_run("pictures", "drawn by make test-all")
    try:
        modules = tool("grafana-components")
        playwright, chromium = tool("playwright")
    except NotHere as missing:
        return not_run("pictures", missing)
    page = built(lab, modules)
    into = repository / "target/dashboards"
    into.mkdir(parents=True, exist_ok=True)
    end = int(time.time())
    for uid in board.UIDS:
        variables = {**board.ALL, "__rate_interval": "10s", **({"peer": peer} if uid == "rafthttp-peer" else {})}
        request = lab.path(f"{uid}.request.json")
        picture = into / f"{uid}.png"
        request.write_text(json.dumps({
            "playwright": playwright, "chromium": chromium, "pictures": [{"file": str(picture)}],
            "render": {
                "dashboard": board.load(uid), "prometheus": prometheus.url, "variables": variables, "start": int(start), "end": end,
                "step": 1, "width": 1600, "mode": os.environ.get("RAFTHTTP_PICTURES", "dark"),
            },
        }))
        done = subprocess.run(["node", RENDER / "draw.mjs", page, request], text=True, capture_output=True, check=False, timeout=300)
        check(f"{uid}: is drawn", done.returncode == 0, done.stderr[-2000:])
        if done.returncode == 0:
            looked_at(check, uid, json.loads(done.stdout))
            print(f"drawn: {picture.relative_to(repository)}")
    return None


def looked_at(check, uid, said):
    """Nothing failed in the page, every panel is there, and the words of a busy cluster are."""
    check.equal(f"{uid}: no error in the page", said["errors"], [])
    check.equal(f"{uid}: every panel is drawn", [number for number, _ in said["drawn"]], [panel["id"] for panel in board.panels(board.load(uid))])
    missing = [word for word in WORDS[uid] if word not in said["text"]]
    check(f"{uid}: the picture tells what happened", not missing, f"no {missing}")


def built(lab, modules):
    """The page, built."""
    source = lab.path("render")
    shutil.copytree(RENDER, source, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (source / "node_modules").symlink_to(modules)
    done = subprocess.run(["node", f"{modules}/vite/bin/vite.js", "build"], cwd=source, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist"
