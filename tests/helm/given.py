"""What people give the chart: values that are null, overrides of what it sets itself, and values that do not go together."""

import concurrent.futures
import functools
import itertools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import kubernetes_validate
import yaml

from chart import BINARY, CHART, HELMS, documents_of, each_rendering, of_kind, one, pods, render, serving, template, test
from container import Container, answers, refusals, settings

# As they are given to Kubernetes: null means none of them. Everything else means its default.
AS_THEY_ARE = {"startupProbe", "livenessProbe", "readinessProbe", "resources", "podSecurityContext", "securityContext", "labels",
               "monitoringNamespaces"}
NODE = ["--set", "mode=node"]
PROBE = ["--set", "mode=probe,probe.targets={https://10.0.0.1:2380},probe.tls.existingSecret=certs"]
# What makes a mode what it is, and what Kubernetes itself requires.
OWN = {"mode", "probe", "probe.targets", "probe.tls", "probe.tls.existingSecret"}
REQUIRED = {"podSecurityContext.seccompProfile.type"}
EVERYTHING = [["--values", CHART / "ci/node-everything-values.yaml"],
              ["--values", CHART / "ci/probe-values.yaml", "--set", "probe.tls.insecureSkipVerify=true,otlp.endpoint=http://c:4317"]]
# For each flag that the chart gives as a variable, a value that cannot be used: who refuses it has read it.
WRONG = {
    "log": "=,=", "log-format": "xml", "grace": "soon", "listen-metrics-urls": "nowhere", "listen-peer-urls": "nowhere",
    "initial-advertise-peer-urls": "nowhere", "listen-client-urls": "nowhere", "advertise-client-urls": "nowhere",
    "initial-cluster": "nobody", "initial-cluster-state": "perhaps", "name": "a=b", "heartbeat-interval": "never",
    "election-timeout": "never", "snapshot-count": "none", "max-request-bytes": "lots", "probe-interval": "never",
    "probe-timeout": "never", "etcd-metrics": "perhaps", "trace-ratio": "2", "interval": "never", "timeout": "never",
    "insecure-skip-tls-verify": "perhaps",
}
# Of these any value will do, or any that is a file.
ANY = {"data-dir", "initial-cluster-token", "peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-cert-allowed-cn",
       "cacert", "cert", "key"}


def at_once(check, cases):
    """Each case, several at a time: most of it is waiting for programs."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outcomes = [(case, pool.submit(check, *case)) for case in cases]
    failed = [f"{case}: {outcome.exception()!r}"[:1000] for case, outcome in outcomes if outcome.exception()]
    assert not failed, f"{len(failed)} of {len(outcomes)}:\n" + "\n".join(failed[:20])


@functools.cache
def certificates():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="chart-certificates-"))
    done = subprocess.run(
        [os.environ["OPENSSL"], "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=store", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return directory


def paths(values, above=""):
    """Every value, maps and what is in them, as `--set` names it, and whether it is a map or a list."""
    for name, value in values.items():
        path = above + name.replace(".", "\\.")
        yield path, isinstance(value, (dict, list))
        if isinstance(value, dict):
            yield from paths(value, f"{path}.")


@test
def each_value_may_be_null():
    defaults = {(mode[1], major): template(*mode, major=major).stdout for mode in (NODE, PROBE) for major in HELMS}

    def check(group, mode, major):
        null = ",".join(f"{path}=null" for path in group)
        done, before = template(*mode, "--set", null, major=major), defaults[mode[1], major]
        assert done.returncode == 0, done.stderr
        if AS_THEY_ARE.isdisjoint(group[0].split(".")):
            assert done.stdout == before, "null is not the default"
        elif done.stdout != before:
            known = documents_of(before)
            for document in documents_of(done.stdout):
                if document not in known:
                    kubernetes_validate.validate(document, "1.37", strict=True)

    every = list(paths(yaml.safe_load((CHART / "values.yaml").read_text())))
    assert len(every) > 150, len(every)
    maps = [path for path, is_map in every if is_map]
    # What stands beside each other is set at once, or it would take minutes.
    leaves = itertools.groupby((path for path, is_map in every if not is_map), lambda path: path.rpartition(".")[0])
    beside = [[path for path in group if path not in OWN | REQUIRED] for _, group in leaves]
    at_once(check, [(group, mode, major) for mode, other, both in ((NODE, "probe.", HELMS), (PROBE, ("node.", "tls."), "4"))
                    for groups, majors in (([[path] for path in maps], both), (beside, "4")) for group in groups for major in majors
                    if group and not group[0].startswith(other) and not (mode is PROBE and group[0] in OWN)])


@test
def what_kubernetes_is_given_as_it_is_is_not_there_when_null():
    for major in HELMS:
        null = ",".join(f"{name}=null" for name in sorted(AS_THEY_ARE - {"labels", "monitoringNamespaces"}))
        spec = serving(render("--set", null, major=major))
        container = spec["containers"][0]
        assert "securityContext" not in spec
        assert not {"startupProbe", "livenessProbe", "readinessProbe", "resources", "securityContext"} & set(container), container
        null = "livenessProbe.periodSeconds=null,livenessProbe.timeoutSeconds=null,livenessProbe.failureThreshold=null"
        probe = serving(render("--set", null, major=major))["containers"][0]["livenessProbe"]
        assert probe == {"httpGet": {"path": "/livez", "port": "metrics"}}, probe
        documents = render("--set", "networkPolicy.monitoringNamespaces=null,monitoring.dashboards.enabled=true"
                           ",monitoring.dashboards.labels=null", major=major)
        assert "namespaceSelector" not in str(one(documents, "NetworkPolicy")["spec"])
        assert not any("grafana_dashboard" in document["metadata"]["labels"] for document in of_kind(documents, "ConfigMap"))


@test
def an_upgrade_that_reuses_the_values_of_a_chart_that_had_none_of_them_renders_the_defaults():
    """What `--reuse-values` makes of it: the values are the older chart's, the templates are these."""
    with tempfile.TemporaryDirectory() as directory:
        older = shutil.copytree(CHART, pathlib.Path(directory) / "rafthttp")
        (older / "values.yaml").write_text("{}\n")
        for mode in (NODE, PROBE):
            for major in HELMS:
                documents, defaults = render(*mode, major=major, chart=older), render(*mode, major=major)
                for name in AS_THEY_ARE - {"labels", "monitoringNamespaces"}:
                    for document in (*documents, *defaults):
                        forget(document, name)
                wanted = [document for document in defaults if document["kind"] != "NetworkPolicy"]
                assert [document for document in documents if document["kind"] != "NetworkPolicy"] == wanted


def forget(document, name):
    if isinstance(document, dict):
        document.pop(name, None)
        for value in document.values():
            forget(value, name)
    elif isinstance(document, list):
        for value in document:
            forget(value, name)


@test
def an_umbrella_chart_sets_the_registry_and_the_secrets_of_every_pod_and_may_leave_anything_null():
    with tempfile.TemporaryDirectory() as directory:
        umbrella = pathlib.Path(directory) / "umbrella"
        shutil.copytree(CHART, umbrella / "charts/rafthttp")
        (umbrella / "Chart.yaml").write_text("{apiVersion: v2, name: umbrella, version: 0.1.0}\n")
        values = {
            "global": {"imageRegistry": "mirror.example.org", "imagePullSecrets": ["one", {"name": "two"}], "storageClass": "theirs"},
            "rafthttp": {"image": {"registry": "registry.example.org", "tag": None}, "imagePullSecrets": [{"name": "two"}, "three"],
                         "monitoring": None, "startupProbe": None, "tls": {"certManager": None}, "extraEnv": None,
                         "resources": {"limits": {"cpu": None}}},
        }
        (umbrella / "values.yaml").write_text(yaml.safe_dump(values))
        for major in HELMS:
            for _, spec in pods(render(major=major, chart=umbrella)):
                assert spec["containers"][0]["image"] == "mirror.example.org/rafthttp:0.1.0"
                assert spec["imagePullSecrets"] == [{"name": name} for name in ("one", "two", "three")]
            alone = ["--set", "global=null,rafthttp.global=null"]
            for _, spec in pods(render(*alone, major=major, chart=umbrella)):
                assert spec["containers"][0]["image"] == "registry.example.org/rafthttp:0.1.0", spec["containers"][0]["image"]
                assert spec["imagePullSecrets"] == [{"name": name} for name in ("two", "three")]


@test
def what_the_chart_sets_both_extra_env_and_extra_args_override():
    def by_variable(values, name, value, major):
        before, _ = settings(render(*values, "--set-json", "extraEnv=[]"))
        set_ = ["--set-json", f'extraEnv=[{{"name":"{name}","value":"{value}"}}]']
        documents = render(*values, *set_, major=major)
        after, _ = settings(documents)
        assert after == before | {name: value}, f"{after}"
        told = Container(documents, serving(documents)).refusal(certificates())
        flag = name.removeprefix("RAFTHTTP_").lower().replace("_", "-")
        assert (flag in WRONG) == (f"'{value}'" in told), told

    def by_flag(values, flag, value, major):
        documents = render(*values, "--set-json", f'extraArgs=["--{flag}={value}"]', major=major)
        told = Container(documents, serving(documents)).refusal(certificates())
        assert (flag in WRONG) == (f"'{value}'" in told) and "multiple times" not in told, told

    cases, seen = [], set()
    for values in EVERYTHING:
        variables, _ = settings(render(*values, "--set-json", "extraEnv=[]"))
        flags = [name for name in variables if name.startswith("RAFTHTTP_")]
        assert len(flags) >= 10, flags
        for name in flags:
            flag = name.removeprefix("RAFTHTTP_").lower().replace("_", "-")
            assert flag in WRONG.keys() | ANY, f"{flag}: say here which value of it is wrong"
            value = WRONG.get(flag, variables[name])
            seen.add(flag)
            cases += [(by, values, what, value, major) for by, what in ((by_variable, name), (by_flag, flag)) for major in HELMS
                      if major == "4" or flag == "snapshot-count"]
        others = [name for name in variables if not name.startswith("RAFTHTTP_")]
        assert {"POD_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_RESOURCE_ATTRIBUTES"} <= set(others), others
        for name in others:
            after, _ = settings(render(*values, "--set-json", f'extraEnv=[{{"name":"{name}","value":"mine"}}]'))
            assert after[name] == "mine", after
    assert seen == WRONG.keys() | ANY, f"not set by the chart: {(WRONG.keys() | ANY) - seen}"
    at_once(lambda by, *case: by(*case), cases)


@test
def a_variable_of_ours_may_refer_to_the_charts():
    variables, _ = settings(render("--set-json", 'extraEnv=[{"name":"RAFTHTTP_DATA_DIR","value":"/x/$(POD_NAME)"}]'))
    assert variables["RAFTHTTP_DATA_DIR"] == "/x/release-rafthttp-0", variables


def grid(**choices):
    """Every combination, as arguments."""
    for values in itertools.product(*choices.values()):
        yield [f"{name.replace('__', '.')}={value}".replace(",", "\\,") for name, value in zip(choices, values)]


COMBINATIONS = [
    (NODE, grid(tls__source=["", "none", "secret", "certManager"], tls__existingSecret=["", "s"],
                tls__certManager__issuerRef__name=["", "i"], tls__allowedCommonName=["", "store"])),
    (NODE, grid(node__heartbeatInterval=["0s", "1ms", "250ms", "10s1ms"], node__electionTimeout=["0s", "5ms", "1249ms", "1250ms", "50s", "50s1ms"])),
    (NODE, grid(node__probeInterval=["0s", "1s", "1m1s"], node__probeTimeout=["0ms", "999ms", "1s", "1m", "1h"])),
    (NODE, grid(node__maxRequestBytes=["0", "0.4B", "1", "1.5MiB", "16MiB", "16.1MiB", "16384KiB", "16385KiB", "16777217", "3KiB"])),
    (NODE, grid(clusterDomain=["", "a", "k8s.example.org", "cluster.1", "a..b"], replicaCount=["1", "3"])),
    (NODE, grid(node__snapshotCount=["0", "1", "10000000", "9007199254740991", "9007199254740992"])),
    (NODE, grid(log__filter=["", "info", "Warn", "info,rafthttp::transport=debug", "info debug", "=,=", "loud", "a=loud", "5", "6",
                             "x[s{f=1}]=trace", "[s]", "off", "a,,b", "info,", "a=b=c"])),
    (NODE, grid(log__format=["auto", "json", "human"])),
    (NODE, grid(otlp__endpoint=["", "http://c:4317", "https://c", "http://c/p", "http://u:p@c:1", "http://[fd00::1]:4317", "http://",
                                "http://:4317", "http://[::1", "http://c:x", "http://1.2.3", "http://a b:1"],
                otlp__protocol=["grpc", "http/protobuf"])),
    (NODE, grid(otlp__endpoint=["http://c:4317"], otlp__traceRatio=["0", "0.0000001", "1"])),
    (NODE, grid(grace=["0s", "24s", "25s", "1h", "999999999h"], monitoring__metricsPort=["2379", "2380", "9000"])),
    (["--set", "mode=probe"], grid(
        **{"probe__targets[0]": ["http://a:1", "https://a:1"]}, probe__tls__existingSecret=["", "s"], probe__tls__caKey=["", "ca.crt"],
        probe__tls__certKey=["", "tls.crt"], probe__tls__keyKey=["", "tls.key"], probe__tls__insecureSkipVerify=["false", "true"])),
    (PROBE, grid(probe__interval=["0s", "500ms", "1s"], probe__timeout=["0s", "499ms", "500ms", "1s"])),
]
GOOD_URLS = ["http://a:1", "http://etcd-0.etcd.example.org:2380", "http://10.0.0.1:65535", "http://[::1]:2380", "http://[fd00::1]:2380",
             "http://[1:2:3:4:5:6:7:8]:1", "http://[::ffff:10.0.0.1]:1", "http://[::]:1", "http://a_b:1", "http://A.b:1", "http://[1::]:1",
             "http://1a.b2:1", "http://[fe80::1%25eth0]:2380"]
BAD_URLS = ["http://a:0", "http://a:65536", "http://a:99999", "http://300.1.1.1:1", "http://a.1:1", "http://[::1:1",
            "http://[:::]:1", "http://[1::2::3]:1", "http://[1:2:3:4:5:6:7]:1", "http://[1:2:3:4:5:6:7:8:9]:1", "http://[g::1]:1",
            "http://[:1:2:3:4:5:6:7]:1", "http://[12345::]:1", "http://a?b:1", "http://a#b:1", "http://::1:1", "http://[]:1", "http://a\\b:1",
            "http://é:1", "http://[1:2:3:4:5:6:7::8]:1", "http://[::ffff:10.0.0.300]:1"]


@test
def what_renders_is_what_the_program_can_use():
    """Values that do not go together fail where helm is run, with their name; no pod ends with the status of bad flags."""
    outcomes = {"refused": 0, "taken": 0}

    def check(base, values):
        arguments = [*base, *(word for value in values for word in ("--set", value))]
        done = template(*arguments)
        if done.returncode == 0:
            told = refusals(documents_of(done.stdout), certificates())
            assert not told, f"it renders, and a pod says {told}"
            outcomes["taken"] += 1
        else:
            names = [value.split("=")[0].split("[")[0].split(".")[-1] for value in values]
            assert any(name in done.stderr for name in [*names, "targets"]), done.stderr
            outcomes["refused"] += 1

    at_once(check, [(base, values) for base, combinations in COMBINATIONS for values in combinations])
    assert min(outcomes.values()) > 40, outcomes


@test
def a_target_that_is_no_peer_url_is_refused_where_helm_is_run_and_each_that_is_one_is_taken():
    def check(url, good, major):
        done = template("--set", "mode=probe", "--set-json", f"probe.targets={json.dumps([url])}", major=major)
        assert (done.returncode == 0) == good and ("targets" in done.stderr or good), done.stderr
        if good:
            program = subprocess.run([BINARY, "probe", "--once", "--timeout=1ms", url], capture_output=True, text=True, env={})
            assert program.returncode != 2, program.stderr

    at_once(check, [(url, good, major) for urls, good in ((GOOD_URLS, True), (BAD_URLS, False)) for url in urls for major in HELMS])


@test
def combinations_that_somebody_would_refuse_later_fail_with_the_value_to_set():
    for major in HELMS:
        for arguments, words in [
            ("tls.source=none,tls.existingSecret=s", ["tls.existingSecret", "tls.source=secret"]),
            ("tls.source=certManager,tls.existingSecret=s,tls.certManager.issuerRef.name=i", ["tls.existingSecret", "tls.source=secret"]),
            ("tls.existingSecret=s,tls.certManager.issuerRef.name=i", ["tls.source"]),
            ("tls.allowedCommonName=store", ["tls.allowedCommonName", "tls.existingSecret"]),
            ("mode=probe,probe.targets={https://a:1}", ["probe.tls.existingSecret", "probe.tls.insecureSkipVerify=true"]),
            ("mode=probe,probe.targets={http://a:1},probe.tls.existingSecret=s", ["probe.targets", "https://"]),
            ("node.heartbeatInterval=250ms", ["node.electionTimeout", "five times", "250ms", "1s"]),
            ("node.probeInterval=500ms", ["node.probeTimeout", "node.probeInterval", "500ms", "700ms"]),
            ("mode=probe,probe.targets={http://a:1},probe.timeout=2s", ["probe.timeout", "probe.interval", "1s", "2s"]),
            ("grace=26s", ["grace", "terminationGracePeriodSeconds", "25s", "26s"]),
            ("ipFamilyPolicy=SingleStack,ipFamilies={IPv6,IPv4}", ["ipFamilyPolicy", "PreferDualStack"]),
            ("monitoring.serviceMonitor.enabled=true,monitoring.serviceMonitor.interval=5s",
             ["monitoring.serviceMonitor.scrapeTimeout", "5s", "10s"]),
            ("monitoring.podMonitor.enabled=true,monitoring.podMonitor.scrapeTimeout=1m", ["monitoring.podMonitor.scrapeTimeout", "15s"]),
            ("tls.certManager.issuerRef.name=i,tls.certManager.renewBefore=2160h", ["tls.certManager.renewBefore", "duration"]),
            ("tls.certManager.issuerRef.name=i,tls.certManager.privateKey.algorithm=RSA", ["tls.certManager.privateKey.size", "2048"]),
            ("tls.certManager.issuerRef.name=i,tls.certManager.privateKey.size=2048", ["tls.certManager.privateKey.size", "521"]),
            ("monitoring.metricsPort=2380", ["monitoring.metricsPort", "2380"]),
        ]:
            done = template("--set", arguments, major=major)
            assert done.returncode != 0 and all(word in done.stderr for word in words), f"{arguments}: {done.stderr}"


@test
def whatever_names_a_certificate_means_it():
    for major in HELMS:
        for arguments, secret in [
            ("tls.existingSecret=mine", "mine"), ("tls.source=secret,tls.existingSecret=mine", "mine"),
            ("tls.certManager.issuerRef.name=i", "release-rafthttp-peer-tls"),
        ]:
            documents = render("--set", arguments, major=major)
            variables, _ = settings(documents)
            assert variables["RAFTHTTP_LISTEN_PEER_URLS"].startswith("https://") and "RAFTHTTP_PEER_CERT_FILE" in variables
            for labels, spec in pods(documents):
                if labels["app.kubernetes.io/component"] in ("node", "test"):
                    assert secret in [volume.get("secret", {}).get("secretName") for volume in spec["volumes"]], labels
            assert bool(of_kind(documents, "Certificate")) == ("issuerRef" in arguments)


@test
def every_service_is_of_the_address_families_that_are_asked_for():
    asked = ["--set", "ipFamilyPolicy=PreferDualStack,ipFamilies={IPv6,IPv4}"]
    for mode in (NODE, PROBE):
        for major in HELMS:
            services = of_kind(render(*mode, *asked, major=major), "Service")
            assert len(services) == (3 if mode is NODE else 1)
            for service in services:
                spec = service["spec"]
                assert spec["ipFamilyPolicy"] == "PreferDualStack" and spec["ipFamilies"] == ["IPv6", "IPv4"], spec
            for service in of_kind(render(*mode, major=major), "Service"):
                assert not {"ipFamilyPolicy", "ipFamilies"} & set(service["spec"]), "the cluster's own way"


@test
def a_mesh_passes_the_peers_bytes_on_as_they_are():
    def check(_, documents):
        ports = [port for service in of_kind(documents, "Service") for port in service["spec"]["ports"] if port["name"] == "peer"]
        assert all(port["appProtocol"] == "tcp" for port in ports), ports

    each_rendering(check)


@test
def pods_are_reached_by_ipv4_and_by_ipv6():
    hosts = ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]
    for mode, ports_and_paths in [
        (NODE, {2379: "/", 2380: "/raft/probing", 2381: "/livez"}),
        (["--set", "mode=probe,probe.targets={http://127.0.0.1:1}"], {2381: "/livez"}),
    ]:
        documents = render(*mode, "--set", "replicaCount=1")
        container = Container(documents, serving(documents))
        assert not [text for text in container.variables.values() if "0.0.0.0" in text]
        with container.started(certificates(), address="[::]", RAFTHTTP_INITIAL_CLUSTER_STATE="new") as (process, said, ports):
            for host, (port, path) in itertools.product(hosts, ports_and_paths.items()):
                for _ in range(600):
                    if port in ports and answers(host, ports[port], path):
                        break
                    assert process.poll() is None, said.read_text()
                    time.sleep(0.05)
                else:
                    raise AssertionError(f"port {port} does not answer at {host}: {said.read_text()}")


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
        return True
    except OSError:
        return False
