"""One control plane, and the parts of the test on it."""

from lab import tool

from .control_plane import ControlPlane, ZONES
from .majors import MajorUpgrade
from .node import NodeMode
from .probe import ProbeMode
from .release import Cluster
from .upgrades import Upgrades
from .values import ValuesFiles

NODES = 5


def run_through(lab, report, emulated, major, only):
    """Starts it as `emulated` (None: as what it is) and runs the parts that `only` names with one major version of helm."""
    plane = ControlPlane(lab, emulated).start()
    cluster = Cluster(lab, plane, major)
    surroundings(plane, cluster)
    place = f"Kubernetes {plane.version()}, helm {major}"
    report.note(f"{place}: it runs, with {NODES} nodes in {len(ZONES)} zones")
    parts = [
        ("node", NodeMode(report, cluster, place)),
        ("probe", ProbeMode(report, cluster, place, "Deployment")),
        ("probe", ProbeMode(report, cluster, place, "DaemonSet")),
        ("upgrades", Upgrades(lab, report, cluster, place)),
        ("values", ValuesFiles(report, cluster, place)),
    ]
    if major == "4":
        parts.append(("majors", MajorUpgrade(report, Cluster(lab, plane, "3"), cluster, place)))
    for name, part in parts:
        if name in only:
            part.run()
    plane.stop()


def surroundings(plane, cluster):
    """The nodes, and what a cluster has before the chart comes: definitions, issuers, a namespace for monitoring."""
    for number in range(NODES):
        plane.add_node(f"node-{number}", ZONES[number % len(ZONES)])
    cluster.kubectl.run("label", "node", "node-0", "node-role.kubernetes.io/control-plane=")
    cluster.kubectl.run("apply", "--server-side", "--filename", tool("custom-resources"))
    cluster.kubectl.run("wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")
    cluster.namespace("monitoring")
    cluster.kubectl.run("create", "priorityclass", "storage", "--value=1000")
    cluster.kubectl.run("apply", "--validate=strict", "--filename=-", given=_ISSUERS)


_ISSUERS = """
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: peers}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: peers, namespace: monitoring}
spec: {selfSigned: {}}
"""
