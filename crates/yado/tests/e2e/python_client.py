"""What programs of the field do with Python's client: typed and dynamic objects, watches, exec, leader election.

Prints a line after each part. After "restart" it waits for a line: the server has been restarted meanwhile."""

import json
import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import stream

PATIENCE = 120


def say(text):
    print(text, flush=True)


def status_of(call):
    """The HTTP code and the reason of a call that fails."""
    try:
        call()
    except ApiException as error:
        return error.status, error.reason
    raise AssertionError("the call succeeded")


def typed(core, apps):
    labels = {"app": "web"}
    container = client.V1Container(name="c", image="busybox", command=["sleep", "100000"])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
    )
    spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=template)
    deployment = client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)
    apps.create_namespaced_deployment("default", deployment)
    assert status_of(lambda: apps.create_namespaced_deployment("default", deployment)) == (409, "Conflict")
    for event in watch.Watch().stream(apps.list_namespaced_deployment, "default", timeout_seconds=PATIENCE):
        if event["object"].status.available_replicas == 2:
            break
    else:
        raise AssertionError("the Deployment does not become available")
    pods = core.list_namespaced_pod("default", label_selector="app=web").items
    assert len(pods) == 2 and all(pod.status.phase == "Running" for pod in pods), pods
    said = stream(
        core.connect_get_namespaced_pod_exec, pods[0].metadata.name, "default",
        command=["sh", "-c", "echo to out; echo to err >&2"],
        stdin=False, stdout=True, stderr=True, tty=False,
    )
    assert sorted(said.split("\n")) == ["", "to err", "to out"], said
    apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 0}})
    stale = apps.read_namespaced_deployment("web", "default")
    apps.patch_namespaced_deployment("web", "default", {"metadata": {"labels": {"a": "b"}}})
    stale.metadata.labels = {"a": "c"}
    assert status_of(lambda: apps.replace_namespaced_deployment("web", "default", stale)) == (409, "Conflict")
    first = core.list_namespaced_config_map("kube-system", limit=1)
    assert len(first.items) == 1
    apps.delete_namespaced_deployment("web", "default", propagation_policy="Foreground")
    say("typed")


DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "colours.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "colours", "singular": "colour", "kind": "Colour"},
        "versions": [{
            "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    "red": {"type": "integer", "maximum": 255},
                    "green": {"type": "integer", "default": 7},
                }},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            }}},
        }],
    },
}


def dynamically(api):
    definitions = dynamic.DynamicClient(api).resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    definitions.create(body=DEFINITION)
    end = time.monotonic() + PATIENCE
    while True:
        definition = definitions.get(name="colours.example.com")
        conditions = {c.type: c.status for c in (definition.status or {}).get("conditions", [])}
        if conditions.get("Established") == "True":
            break
        assert time.monotonic() < end, conditions
        time.sleep(0.05)
    colours = dynamic.DynamicClient(api).resources.get(api_version="example.com/v1", kind="Colour")
    body = {"apiVersion": "example.com/v1", "kind": "Colour", "metadata": {"name": "x"}, "spec": {"red": 1}}
    made = colours.create(body=body, namespace="default")
    assert made.spec.green == 7, made
    applied = dict(body, spec={"red": 2})
    assert status_of(lambda: colours.server_side_apply(json.dumps(applied), name="x", namespace="default", field_manager="python"))[0] == 409
    patched = colours.server_side_apply(json.dumps(applied), name="x", namespace="default", field_manager="python", force_conflicts=True)
    assert patched.spec.red == 2, patched
    wrong = dict(body, metadata={"name": "y"}, spec={"red": 256})
    assert status_of(lambda: colours.create(body=wrong, namespace="default"))[0] == 422
    colours.status.patch(
        body={"status": {"seen": True}}, name="x", namespace="default", content_type="application/merge-patch+json")
    assert colours.get(name="x", namespace="default").status.seen is True
    say("dynamic")


def elect():
    led = []

    def candidate(name):
        lock = ConfigMapLock("leader", "default", name)
        settings = electionconfig.Config(
            lock, lease_duration=4, renew_deadline=2, retry_period=1.1,
            onstarted_leading=lambda: led.append(name), onstopped_leading=None)
        threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()

    candidate("one")
    candidate("two")
    end = time.monotonic() + PATIENCE
    while not led:
        assert time.monotonic() < end, "nobody leads"
        time.sleep(0.05)
    time.sleep(1)
    assert len(led) == 1, led
    say("elected")


def over_a_restart(core):
    """An informer as one writes it by hand: list, watch from there, and begin anew where the server says 410."""
    known = {}

    def relist():
        found = core.list_namespaced_config_map("default", label_selector="informer=yes")
        known.clear()
        known.update({item.metadata.name: item.data["n"] for item in found.items})
        return found.metadata.resource_version

    def make(name):
        labels = {"informer": "yes"}
        core.create_namespaced_config_map(
            "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data={"n": name}))

    make("before")
    revision = relist()
    say("restart")
    sys.stdin.readline()
    make("after")
    end = time.monotonic() + PATIENCE
    while set(known) != {"before", "after"}:
        assert time.monotonic() < end, known
        try:
            events = watch.Watch().stream(
                core.list_namespaced_config_map, "default", label_selector="informer=yes",
                resource_version=revision, timeout_seconds=2)
            for event in events:
                metadata = event["object"].metadata
                known[metadata.name] = event["object"].data["n"]
                revision = metadata.resource_version
        except ApiException as error:
            assert error.status == 410, error
            revision = relist()
    say("informed")


config.load_kube_config()
# Connections from before the restart are of no use after it.
api = client.ApiClient()
core = client.CoreV1Api(api)
assert client.VersionApi(api).get_code().major == "1"
typed(core, client.AppsV1Api(api))
dynamically(api)
elect()
over_a_restart(core)
