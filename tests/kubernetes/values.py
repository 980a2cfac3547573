"""Every file of values in the chart's ci: taken by the server to the letter, installed, and gone again."""

import copy

import yaml

from .release import CHART, Release

FILES = sorted(CHART.glob("ci/*-values.yaml"))


class ValuesFiles:
    def __init__(self, report, cluster, place):
        self._report, self._cluster, self._place = report, cluster, place

    def run(self):
        for file in FILES:
            name = file.name.removesuffix("-values.yaml")
            release = Release(self._cluster, "release", f"{name}-{self._cluster.major}")
            self._surroundings(release, file)
            for what, step in [
                ("the server takes every object to the letter, and refuses each with one misspelt field", self._strictly),
                ("install --wait, helm test, upgrade, uninstall: nothing is left", self._comes_and_goes),
            ]:
                self._report.check(f"{self._place}: {file.name}: {what}", lambda step=step, release=release, file=file: step(release, file))
            self._cluster.remove_namespace(release.namespace)

    def _surroundings(self, release, file):
        """What the values name and the chart does not make."""
        values = yaml.safe_load(file.read_text())
        # The node's network is more than the standards allow.
        level = "privileged" if values.get("probe", {}).get("hostNetwork") else "restricted"
        self._cluster.namespace(release.namespace, level)
        account = values.get("serviceAccount", {})
        if account.get("create") is False and account.get("name"):
            self._cluster.api.create(release.path("serviceaccounts"), {
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account["name"]}})

    def _strictly(self, release, file):
        rendered = self._cluster.helm.run("template", release.name, CHART, "--values", file, "--namespace", release.namespace)
        documents = [document for document in yaml.safe_load_all(rendered) if document]
        # A pod is refused as long as its account is not there, and a dry run makes none.
        accounts = yaml.safe_dump_all(document for document in documents if document["kind"] == "ServiceAccount")
        if accounts:
            self._cluster.kubectl.run("apply", "--filename=-", given=accounts)
        self._dry_run(rendered)
        said = self._dry_run(yaml.safe_dump_all(map(_misspelt, documents)), fails=True)
        refused = said.count("unknown field")
        assert refused == len(documents), f"{refused} of {len(documents)} refused: {said}"
        if accounts:
            self._cluster.kubectl.run("delete", "--filename=-", given=accounts)

    def _dry_run(self, documents, **how):
        return self._cluster.kubectl.run("apply", "--dry-run=server", "--validate=strict", "--filename=-", given=documents, **how)

    def _comes_and_goes(self, release, file):
        before = self._cluster.everything()
        release.install("--values", file)
        if (yaml.safe_load(file.read_text()).get("tests") or {}).get("enabled", True):
            release.test()
        families = yaml.safe_load(file.read_text()).get("ipFamilies", ["IPv4"])
        for service in self._cluster.api.items(release.path("services")):
            assert service["spec"]["ipFamilies"] == families, service["spec"]
        component = "probe" if "probe" in file.name else "node"
        first = release.pods(component)
        release.upgrade("--values", file, "--set", "podAnnotations.again=yes")
        then = release.pods(component)
        assert len(first) == len(then) > 0 and not _uids(first) & _uids(then), "a pod was not replaced"
        assert not self._cluster.warnings(release.namespace), self._cluster.warnings(release.namespace)
        release.uninstall()
        self._cluster.kubectl.run("delete", "persistentvolumeclaims", "--all", "--namespace", release.namespace)
        self._cluster.until_as_before(before)


def _uids(pods):
    return {pod["metadata"]["uid"] for pod in pods.values()}


def _misspelt(document):
    """The same with a field that no schema has, in its spec or where else its kind keeps its own."""
    wrong = copy.deepcopy(document)
    (wrong["spec"] if "spec" in wrong else wrong)["misspelt"] = True
    return wrong
