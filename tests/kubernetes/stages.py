"""How the pretended kubelets behave: kwok's own stages, with what these tests want of them."""

import copy

import yaml

# A label for pods that shall end badly.
FAILS = {"pretended": "failure"}
# How long a pod takes to start or to end well, and to stop: long enough that an order is seen.
_PACE, _STOP = {"durationMilliseconds": 1000}, {"durationMilliseconds": 2000}
_FILES = [
    "node/fast/node-initialize", "node/heartbeat/node-heartbeat",
    "pod/fast/pod-ready", "pod/fast/pod-complete", "pod/fast/pod-delete",
    "volume/fast/pv-bind", "volume/fast/pv-delete", "volume/fast/pvc-provision", "volume/fast/pvc-delete",
]
_LABEL, _OWNERS = ".metadata.labels[\"{}\"]", ".metadata.ownerReferences.[].kind"


def stages(directory, storage_classes):
    """A file of kwok's configuration. Volumes are there at once in the storage classes that are named."""
    text = "\n---\n".join((directory / f"{name}.yaml").read_text() for name in _FILES)
    classes = ", ".join(f"'{name}'" for name in storage_classes)
    documents = list(yaml.safe_load_all(text.replace("storageClassName == 'kwok-volume'", f"storageClassName in [{classes}]")))
    by_name = {document["metadata"]["name"]: document["spec"] for document in documents}
    by_name["pod-ready"]["delay"] = by_name["pod-complete"]["delay"] = _PACE
    by_name["pod-delete"]["delay"] = _STOP
    documents += [_like(by_name["pod-complete"], "test-complete"), _like(by_name["pod-complete"], "pod-fail"), _balancer()]
    jobs, tests, failing = by_name["pod-complete"], documents[-3]["spec"], documents[-2]["spec"]
    # A job's pod ends well, unless it is to fail; so does a pod of `helm test`, which no job owns.
    failing["selector"]["matchExpressions"].append(_label("pretended", "In", "failure"))
    failing["next"]["statusTemplate"] = _badly(failing["next"]["statusTemplate"])
    for spec in (jobs, tests):
        spec["selector"]["matchExpressions"].append(_label("pretended", "DoesNotExist"))
    tests["selector"]["matchExpressions"] = [
        expression for expression in tests["selector"]["matchExpressions"] if expression["key"] != _OWNERS
    ] + [_label("app.kubernetes.io/component", "In", "test")]
    return yaml.safe_dump_all(documents)


def _like(spec, name):
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": copy.deepcopy(spec)}


def _label(name, operator, *values):
    return {"key": _LABEL.format(name), "operator": operator, **({"values": list(values)} if values else {})}


def _badly(template):
    for good, bad in [("exitCode: 0", "exitCode: 1"), ("reason: Completed", "reason: Error"), ("phase: Succeeded", "phase: Failed")]:
        assert good in template, f"{good} is not in kwok's template"
        template = template.replace(good, bad)
    return template


def _balancer():
    """What a cloud does for a service of type LoadBalancer: it gets an address."""
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": "service-balanced"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Service"},
            "selector": {"matchExpressions": [
                {"key": ".spec.type", "operator": "In", "values": ["LoadBalancer"]},
                {"key": ".status.loadBalancer.ingress", "operator": "DoesNotExist"},
            ]},
            "next": {"statusTemplate": "loadBalancer:\n  ingress:\n  - ip: 192.0.2.1\n"},
        },
    }
