"""What the chart renders, held against the schemas of Kubernetes, of the custom resources, and against what it promises."""

import filecmp
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import traceback

import kubernetes_validate
import yaml
from cloudcoil.models.cert_manager import v1 as cert_manager
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator

import given  # noqa: F401, its tests count among these
from chart import BINARY, CHART, HELMS, ROOT, TESTS, VALUES, each_rendering, helm, of_kind, one, pods, render, serving, test
from container import Container

PROMTOOL, GENERATOR = os.environ["PROMTOOL"], os.environ["README_GENERATOR"]
# The oldest and the newest that the schemas at hand have and that is still supported.
KUBERNETES = ["1.34", "1.37"]
CUSTOM = {
    "ServiceMonitor": prometheus_operator.ServiceMonitor,
    "PodMonitor": prometheus_operator.PodMonitor,
    "PrometheusRule": prometheus_operator.PrometheusRule,
    "Certificate": cert_manager.Certificate,
}


@test
def both_majors_of_helm_find_no_fault():
    for values in VALUES:
        for major in HELMS:
            done = helm(major, "lint", "--strict", CHART, "--values", values)
            assert done.returncode == 0, f"helm {major}, {values.name}: {done.stdout}{done.stderr}"


@test
def both_majors_of_helm_render_the_same():
    for values in VALUES:
        by_key = [
            {(document["kind"], document["metadata"]["name"]): document for document in render("--values", values, major=major)}
            for major in HELMS
        ]
        assert by_key[0] == by_key[1], values.name


@test
def every_object_is_what_kubernetes_takes_strictly():
    for values in VALUES:
        for version in KUBERNETES:
            for document in render("--values", values, kubernetes=f"{version}.0"):
                if document["kind"] not in CUSTOM:
                    kubernetes_validate.validate(document, version, strict=True)


def unknown_keys(given, known, where=""):
    """What of `given` a model did not take over."""
    if isinstance(given, dict):
        assert isinstance(known, dict), f"{where}: {known!r}"
        for key, value in given.items():
            assert key in known, f"{where}.{key} is no field"
            unknown_keys(value, known[key], f"{where}.{key}")
    elif isinstance(given, list):
        for number, (one_given, one_known) in enumerate(zip(given, known, strict=True)):
            unknown_keys(one_given, one_known, f"{where}[{number}]")


@test
def every_custom_resource_is_what_its_own_schema_has():
    seen = set()

    def check(_, documents):
        for document in documents:
            if document["kind"] in CUSTOM:
                model = CUSTOM[document["kind"]].model_validate(document)
                dumped = model.model_dump(mode="json", by_alias=True, exclude_none=True)
                unknown_keys(document["spec"], dumped["spec"], document["kind"])
                seen.add(document["kind"])

    each_rendering(check)
    assert seen == set(CUSTOM), seen


@test
def the_rendered_rules_are_the_projects_and_promtool_takes_them():
    rules = (ROOT / "dashboards/alerts/rafthttp.yaml").read_text()
    for values in ["ci/probe-values.yaml", "ci/node-everything-values.yaml"]:
        spec = one(render("--values", CHART / values), "PrometheusRule")["spec"]
        assert spec == yaml.safe_load(rules), values
        if not PROMTOOL:
            print("not run: promtool check rules on the chart's: promtool is not here")
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(spec, file)
            file.flush()
            done = subprocess.run([PROMTOOL, "check", "rules", file.name], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


@test
def the_rendered_dashboards_are_the_projects():
    files = sorted((ROOT / "dashboards").glob("*.json"))
    assert files
    documents = render("--values", CHART / "ci/probe-values.yaml")
    maps = {name: text for document in of_kind(documents, "ConfigMap") for name, text in document["data"].items()}
    for file in files:
        assert maps[file.name] == file.read_text().rstrip("\n"), file.name
    assert all(document["metadata"]["labels"]["grafana_dashboard"] == "1" for document in of_kind(documents, "ConfigMap"))


@test
def the_package_holds_the_projects_dashboards_and_rules_byte_for_byte_and_little_else():
    for major in HELMS:
        with tempfile.TemporaryDirectory() as directory:
            done = helm(major, "package", CHART, "--destination", directory)
            assert done.returncode == 0, done.stderr
            archive, = pathlib.Path(directory).glob("*.tgz")
            with tarfile.open(archive) as package:
                package.extractall(directory, filter="data")
            packed = pathlib.Path(directory) / "rafthttp/files/dashboards"
            names = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
            dashboards = {path.name for path in (ROOT / "dashboards").glob("*.json")}
            assert names == dashboards | {"alerts/rafthttp.yaml"}, (major, names)
            for name in names:
                assert filecmp.cmp(packed / name, ROOT / "dashboards" / name, shallow=False), name
            # What was packed renders as the chart does.
            done = helm(major, "template", "release", archive, "--values", CHART / "ci/probe-values.yaml")
            assert done.returncode == 0, done.stderr


@test
def wrong_values_are_refused_with_the_name_of_what_is_wrong():
    probe = ["--set", "mode=probe"]
    targets = [*probe, "--set", "probe.targets={http://a:2380}"]
    for arguments, word in [
        (["--set", "replicas=3"], "replicas"),
        (["--set", "node.snapshotcount=3"], "snapshotcount"),
        (["--set", "mode=watch"], "mode"),
        (["--set", "replicaCount=0"], "replicaCount"),
        (["--set", "node.electionTimeout=soon"], "electionTimeout"),
        (["--set", "tls.source=off"], "source"),
        (["--set", "ipFamilies={IPv5}"], "ipFamilies"),
        (["--set", "ipFamilyPolicy=DualStack"], "ipFamilyPolicy"),
        (["--set", "extraEnv[0].name=RAFTHTTP_SNAPSHOT_COUNT,extraEnv[0].value=5"], "extraEnv"),
        (["--set", "log.filter=info debug"], "filter"),
        (["--set", "tls.source=secret"], "tls.existingSecret"),
        (["--set", "tls.source=certManager"], "tls.certManager.issuerRef.name"),
        (["--set", "clientTls.clientCertAuth=true"], "clientTls.clientCertAuth"),
        (["--set", "clientTls.metrics=true"], "clientTls.metrics"),
        (["--set", "clientTls.existingSecret=s,clientTls.metrics=true,clientTls.clientCertAuth=true"], "clientTls.metrics"),
        (["--set", "image.digest=sha256:1"], "digest"),
        (["--set", "monitoring.metricsPort=0"], "metricsPort"),
        (["--set", "monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true"], "serviceMonitor"),
        (["--set", "otlp.traceRatio=2"], "traceRatio"),
        (["--set", "node.persistence.size=lots"], "size"),
        (probe, "probe.targets"),
        ([*probe, "--set", "probe.targets={etcd-1:2380}"], "targets"),
        ([*targets, "--set", "probe.kind=Job"], "kind"),
    ]:
        for major in HELMS:
            done = helm(major, "template", "release", CHART, *arguments)
            assert done.returncode != 0 and word in done.stderr, f"helm {major} {arguments}: {done.stderr}"


@test
def the_readme_has_every_value():
    if not GENERATOR:
        print("not run: the chart's table of values: readme-generator is not here (it needs node and npm)")
        return
    with tempfile.TemporaryDirectory() as directory:
        copy = pathlib.Path(directory) / "README.md"
        copy.write_text((CHART / "README.md").read_text())
        command = ["node", GENERATOR, "--values", CHART / "values.yaml", "--readme", copy]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        remake = f"{' '.join(map(str, command[:-1]))} helm/rafthttp/README.md"
        assert copy.read_text() == (CHART / "README.md").read_text(), f"the table is old: {remake}"


@test
def no_pod_has_more_rights_than_it_needs():
    def check(values, documents):
        assert list(pods(documents)), values
        for _, spec in pods(documents):
            assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
            context = spec["securityContext"]
            assert context["runAsNonRoot"] and context["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in spec["containers"]:
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert container["resources"]["limits"]["memory"]

    each_rendering(check)


@test
def every_service_budget_and_policy_selects_the_pods_that_serve_and_no_job():
    def check(values, documents):
        serving = [labels for labels, _ in pods(documents) if labels["app.kubernetes.io/component"] in ("node", "probe")]
        others = [labels for labels, _ in pods(documents) if labels not in serving]
        selectors = [document["spec"]["selector"] for document in of_kind(documents, "Service")]
        for document in of_kind(documents, "PodDisruptionBudget"):
            selectors.append(document["spec"]["selector"]["matchLabels"])
        for document in of_kind(documents, "NetworkPolicy"):
            selectors.append(document["spec"]["podSelector"]["matchLabels"])
        for document in of_kind(documents, "PodMonitor"):
            selectors.append(document["spec"]["selector"]["matchLabels"])
        assert len(serving) == 1 and selectors, values
        for selector in selectors:
            assert selector.items() <= serving[0].items(), (values, selector)
            assert not any(selector.items() <= labels.items() for labels in others), (values, selector)
        for document in of_kind(documents, "ServiceMonitor"):
            wanted = document["spec"]["selector"]["matchLabels"].items()
            services = [s for s in of_kind(documents, "Service") if wanted <= s["metadata"]["labels"].items()]
            assert [service["spec"]["ports"][0]["name"] for service in services] == ["metrics"], values

    each_rendering(check)


@test
def members_find_each_other_before_any_is_ready():
    documents = render()
    headless = [s for s in of_kind(documents, "Service") if s["metadata"]["name"] == one(documents, "StatefulSet")["spec"]["serviceName"]]
    assert headless[0]["spec"]["clusterIP"] == "None" and headless[0]["spec"]["publishNotReadyAddresses"]
    container = one(documents, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for replicas in [1, 3, 5, 12]:
        documents = render("--set", f"replicaCount={replicas}")
        name = one(documents, "StatefulSet")["metadata"]["name"]
        initial, = [d for d in of_kind(documents, "ConfigMap") if d["metadata"]["name"] == f"{name}-initial"]
        members = initial["data"]["RAFTHTTP_INITIAL_CLUSTER"].split(",")
        domain = f"{name}-peers.space.svc.cluster.local"
        assert members == [f"{name}-{n}=http://{name}-{n}.{domain}:2380" for n in range(replicas)], members


@test
def scaling_restarts_no_member_that_stays():
    templates = [one(render("--set", f"replicaCount={n}"), "StatefulSet")["spec"]["template"] for n in (3, 5)]
    assert templates[0] == templates[1]


@test
def the_budget_leaves_a_quorum():
    for replicas in range(1, 10):
        budgets = of_kind(render("--set", f"replicaCount={replicas}"), "PodDisruptionBudget")
        if replicas == 1:
            assert not budgets, "a member alone could never be drained"
        else:
            left = replicas - budgets[0]["spec"]["maxUnavailable"]
            assert left == replicas // 2 + 1, (replicas, left)


@test
def the_end_of_a_pod_leaves_time_to_hand_leadership_over():
    seconds = {"s": 1, "m": 60}

    def check(values, documents):
        spec = serving(documents)
        grace = Container(documents, spec).variables["RAFTHTTP_GRACE"]
        sleep = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert int(grace[:-1]) * seconds[grace[-1]] + sleep < spec["terminationGracePeriodSeconds"], values

    each_rendering(check)
    old = one(render(kubernetes="1.29.0"), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert "lifecycle" not in old, "Kubernetes 1.29 knows no sleep"


@test
def a_watcher_in_the_nodes_network_is_replaced_where_its_port_is_taken():
    values = CHART / "ci/probe-host-network-values.yaml"
    strategy = one(render("--values", values), "Deployment")["spec"]["strategy"]
    assert strategy == {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, strategy
    own = one(render("--values", values, "--set", "updateStrategy.type=Recreate"), "Deployment")["spec"]["strategy"]
    assert own == {"type": "Recreate"}, own
    assert "strategy" not in one(render("--values", CHART / "ci/probe-values.yaml"), "Deployment")["spec"]


@test
def a_hook_that_failed_does_not_stay_for_ever():
    assert one(render(), "Job")["spec"]["ttlSecondsAfterFinished"] > 0


@test
def certificates_are_for_server_and_client_and_name_every_member():
    documents = render("--values", CHART / "ci/node-cert-manager-values.yaml")
    certificate = one(documents, "Certificate")["spec"]
    assert {"server auth", "client auth"} <= set(certificate["usages"])
    name = one(documents, "StatefulSet")["metadata"]["name"]
    assert f"*.{name}-peers.space.svc.cluster.local" in certificate["dnsNames"]
    volumes = one(documents, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
    assert {"secretName": certificate["secretName"], "defaultMode": 0o440} in [volume.get("secret") for volume in volumes]


@test
def clients_metrics_probes_and_scrapes_agree_on_tls():
    for auth, metrics in [(None, False), (False, False), (True, False), (False, True)]:
        values = []
        if auth is not None:
            values += ["--set", f"clientTls.existingSecret=clients,clientTls.clientCertAuth={str(auth).lower()},clientTls.metrics={str(metrics).lower()}"]
        for major in HELMS:
            documents = render(*values, "--set", "monitoring.serviceMonitor.enabled=true", major=major)
            by_pods = render(*values, "--set", "monitoring.podMonitor.enabled=true", major=major)
            spec = one(documents, "StatefulSet")["spec"]["template"]["spec"]
            container = spec["containers"][0]
            variables = {variable["name"]: variable.get("value") for variable in container["env"]}
            clients, scheme = "http" if auth is None else "https", "https" if metrics else "http"
            assert variables["RAFTHTTP_LISTEN_CLIENT_URLS"].startswith(f"{clients}://")
            assert variables["RAFTHTTP_ADVERTISE_CLIENT_URLS"].startswith(f"{clients}://")
            assert variables["RAFTHTTP_LISTEN_METRICS_URLS"].startswith(f"{scheme}://")
            assert ("RAFTHTTP_TRUSTED_CA_FILE" in variables) == (auth is True), "a CA alone asks for certificates"
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
                assert container[probe]["httpGet"].get("scheme", "HTTP") == scheme.upper(), probe
            hook = one(documents, "Job")["spec"]["template"]["spec"]
            for pod in [spec, hook]:
                mounts = [mount["name"] for mount in pod["containers"][0].get("volumeMounts", [])]
                assert ("client-tls" in mounts) == (auth is not None), mounts
                given = {volume["name"]: volume for volume in pod.get("volumes", [])}
                assert auth is None or given["client-tls"]["secret"]["secretName"] == "clients"
            arguments = hook["containers"][0]["args"]
            assert any(argument.startswith(f"--endpoints={clients}://") for argument in arguments), arguments
            assert (auth is not None) == any(argument.startswith("--cacert=") for argument in arguments)
            assert (auth is True) == any(argument.startswith("--cert=") for argument in arguments)
            endpoints = one(documents, "ServiceMonitor")["spec"]["endpoints"] + one(by_pods, "PodMonitor")["spec"]["podMetricsEndpoints"]
            for endpoint in endpoints:
                assert endpoint.get("scheme", "http") == scheme
                assert ("tlsConfig" in endpoint) == metrics


@test
def peers_are_reached_by_the_release_alone():
    rules = one(render(), "NetworkPolicy")["spec"]["ingress"]
    release = {"app.kubernetes.io/name": "rafthttp", "app.kubernetes.io/instance": "release"}
    peer = [rule["from"] for rule in rules if "peer" in [port["port"] for port in rule["ports"]]]
    assert peer == [[{"podSelector": {"matchLabels": release}}]], peer
    metrics, = [rule["from"] for rule in rules if "metrics" in [port["port"] for port in rule["ports"]]]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}} in metrics


@test
def the_binary_knows_every_flag_and_variable_that_is_rendered():
    known = {}

    def names(words):
        if words not in known:
            done = subprocess.run([BINARY, *words, "--help"], capture_output=True, text=True)
            assert done.returncode == 0, f"{words}: {done.stderr}"
            known[words] = set(re.findall(r"--[a-z][a-z-]*|RAFTHTTP_[A-Z_]+", done.stdout))
        return known[words]

    def check(_, documents):
        for _, spec in pods(documents):
            container = Container(documents, spec)
            arguments = container.arguments
            words = tuple(arguments[:2]) if arguments[0] == "member" else (arguments[0],)
            used = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
            used |= {name for name in container.variables if name.startswith("RAFTHTTP_")}
            assert used <= names(words), (words, used - names(words))

    each_rendering(check)


def main():
    """Runs those tests whose names have one of the words that are given, or all of them."""
    failed, wanted = 0, [word.replace(" ", "_") for word in sys.argv[1:]] or [""]
    chosen = [function for function in TESTS if any(word in function.__name__ for word in wanted)]
    for function in chosen:
        name = function.__name__.replace("_", " ")
        try:
            function()
            print(f"ok      {name}")
        except Exception:
            failed += 1
            print(f"FAILED  {name}")
            traceback.print_exc(limit=3, file=sys.stdout)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
