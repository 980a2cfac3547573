"""A laboratory for tests that need whole programs: members as processes, load, faults, Prometheus and Alertmanager.

    from lab import Cluster, Lab, Load, Prometheus, tool, until

    with Lab() as lab:                                    # a directory, and whatever is started in it, both gone at the end
        cluster = Cluster(lab, members=3).start()         # three `rafthttp node`, each on free ports
        cluster.leader()                                  # waits for one
        prometheus = Prometheus(lab, cluster.targets(), rules=["rules.yaml"]).start()
        with Load(cluster):                               # writes through every member, steadily
            cluster[2].freeze()                           # SIGSTOP
            until("it is seen", lambda: prometheus.query("rafthttp_peer_reachable == 0"))

Standard library alone. Everything binds 127.0.0.1 on a port that was free, or stands in a network of its own
(`within_a_network`); every process is ended by its own id. Waits are bounded and say what they waited for. The binary is
`$RAFTHTTP_BIN`, else target/debug/rafthttp.
"""

from . import tree
from .certificates import Certificates
from .cluster import Cluster, Node, Watcher
from .exposition import Scrape, scrape
from .load import Load
from .monitoring import Alertmanager, Prometheus, Webhook, targets_of
from .network import Network, within_a_network
from .processes import Lab, NotHere, Process, binary, repository, tool, until
from .relay import Relay
from .report import Report

__all__ = [
    "Alertmanager", "Certificates", "Cluster", "Lab", "Load", "Network", "Node", "NotHere", "Process", "Prometheus", "Relay", "Report",
    "Scrape", "Watcher", "Webhook", "binary", "repository", "scrape", "targets_of", "tool", "tree", "until", "within_a_network",
]
