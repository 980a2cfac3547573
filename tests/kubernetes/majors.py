"""A release that one major version of helm made goes on with the next."""

from .release import Release
from .node import MEMBERS


class MajorUpgrade:
    def __init__(self, report, older, newer, place):
        self._report, self._newer, self._place = report, newer, place
        self._first, self._then = (Release(cluster, "store", "majors") for cluster in (older, newer))

    def run(self):
        self._newer.namespace("majors")
        what = f"what helm {self._first.cluster.major} installed: upgrade, scale up, rollback and uninstall"
        self._report.check(f"{self._place}: {what}", self._goes_on)
        self._newer.remove_namespace("majors")

    def _goes_on(self):
        before = self._newer.everything()
        self._first.install()
        self._then.upgrade("--set", "replicaCount=5,node.persistence.retention.whenDeleted=Delete")
        assert len(self._then.pods("node")) == 5
        self._then.rollback(1)
        assert sorted(self._then.pods("node")) == [f"{MEMBERS}-{number}" for number in range(3)]
        self._then.uninstall()
        self._newer.kubectl.run("delete", "persistentvolumeclaims", "--all", "--namespace", "majors")
        self._newer.until_as_before(before)
