"""The files of clusters: what they name exists, and their ports are those of the request."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import FlinkRunnerOptions

from scenebeam.execution.runners import check_runner
from scenebeam.request import RunRequest
from scenebeam.requestfile import load_request

ROOT = Path(__file__).parents[2]
FLINK = ROOT / "infra" / "clusters" / "flink"
DASK = ROOT / "infra" / "clusters" / "dask" / "cluster.yaml"
Object = dict[str, Any]


@pytest.fixture
def request_() -> RunRequest:
    """The example request."""
    return load_request(FLINK / "request.yaml")[0]


@pytest.fixture
def options(request_: RunRequest) -> dict[str, str]:
    """The options of its runner."""
    check_runner(request_)
    return {name: str(value) for name, value in request_.runner.options.items()}


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def compose() -> Object:
    services: Object = yaml.safe_load((FLINK / "compose.yaml").read_text())["services"]
    return services


def manifests() -> dict[tuple[str, str], Object]:
    documents = yaml.safe_load_all((FLINK / "kubernetes.yaml").read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def pod_of(manifest: Object) -> Object:
    pod: Object = manifest["spec"]["template"]["spec"]
    return pod


def test_versions_are_those_that_beam_supports() -> None:
    beam = re.search(r"^apache-beam==(\S+)", (ROOT / "docker/worker.lock").read_text(), re.M)
    assert beam is not None
    for path in (FLINK / "compose.yaml", FLINK / "kubernetes.yaml", ROOT / "docs/clusters.md"):
        text = path.read_text()
        flinks = set(re.findall(r"(?:flink:|beam_flink)(\d+\.\d+)", text))
        assert len(flinks) == 1, f"one version of Flink in {path}"
        assert flinks <= set(FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS)
        assert set(re.findall(r"job_server:(\S+?)[\s`,]", text)) == {beam[1]}


def test_compose_names_services_and_ports_of_the_request(options: dict[str, str]) -> None:
    services = compose()
    host, port = address(options["job_endpoint"])
    assert f"--job-host={host}" in services[host]["command"]
    assert port == 8099, "the job server's default"
    for service in services.values():
        shared = service.get("network_mode", "").removeprefix("service:")
        assert {*service.get("depends_on", []), *([shared] if shared else [])} <= set(services)
    master = next(word for word in services[host]["command"] if word.startswith("--flink-master"))
    assert address(master.partition("=")[2])[0] in services
    properties = services["taskmanager-1"]["environment"]["FLINK_PROPERTIES"]
    assert "jobmanager.rpc.address: jobmanager\n" in properties


def test_each_task_manager_of_compose_has_a_worker_pool_in_its_network(
    options: dict[str, str],
) -> None:
    assert address(options["environment_config"]) == ("localhost", 50000), "where the image listens"
    services = compose()
    managers = {name for name in services if name.startswith("taskmanager")}
    pools = [one for one in services.values() if one.get("command") == ["--worker_pool"]]
    assert {pool["network_mode"] for pool in pools} == {f"service:{name}" for name in managers}
    assert len(pools) == len(managers)
    staged = {*services["flink-jobserver"]["volumes"], *services["taskmanager-1"]["volumes"]}
    assert staged == {"artifacts:/tmp/beam-artifact-staging"}
    assert all(pool["volumes"][0] == services["scenebeam"]["volumes"][0] for pool in pools)
    for mount in services["scenebeam"]["volumes"][1:]:
        assert (FLINK / mount.split(":")[0]).is_file()
    assert (FLINK / services["scenebeam"]["build"]["context"]).resolve() == ROOT


def test_services_of_kubernetes_find_their_pods_and_ports(options: dict[str, str]) -> None:
    found = manifests()
    host, port = address(options["job_endpoint"])
    assert port in {one["port"] for one in found["Service", host]["spec"]["ports"]}
    for (kind, name), manifest in found.items():
        if kind != "Service":
            continue
        deployment = found["Deployment", name]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert manifest["spec"]["selector"] == labels
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        ports = [one for c in pod_of(deployment)["containers"] for one in c["ports"]]
        assert {one["containerPort"] for one in ports} == {
            one["port"] for one in manifest["spec"]["ports"]
        }
    (server,) = pod_of(found["Deployment", host])["containers"]
    arguments = dict(word.removeprefix("--").split("=") for word in server["args"])
    assert arguments["job-host"] == host
    manager, rest = address(arguments["flink-master"])
    assert rest in {one["port"] for one in found["Service", manager]["spec"]["ports"]}
    properties = found["ConfigMap", "flink-properties"]["data"]["FLINK_PROPERTIES"]
    assert f"jobmanager.rpc.address: {manager}\n" in properties


def test_pods_mount_volumes_that_exist_and_share_the_output(
    request_: RunRequest, options: dict[str, str]
) -> None:
    found = manifests()
    outputs = set()
    for pod in (pod_of(one) for (kind, _), one in found.items() if kind in ("Deployment", "Job")):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in volumes
            if container["image"].startswith("registry.example.org/scenebeam"):
                outputs.add(tuple(container["volumeMounts"][0].items()))
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or ("PersistentVolumeClaim", claim["claimName"]) in found
    (output,) = outputs
    assert request_.output.startswith(dict(output)["mountPath"] + "/")
    worker = pod_of(found["Deployment", "flink-taskmanager"])["containers"][1]
    pool = address(options["environment_config"])[1]
    assert worker["args"] == ["--worker_pool"]
    assert [one["containerPort"] for one in worker["ports"]] == [pool]


def test_parallelism_is_the_number_of_slots(request_: RunRequest) -> None:
    managers = manifests()["Deployment", "flink-taskmanager"]["spec"]["replicas"]
    assert managers == sum(name.startswith("taskmanager") for name in compose())
    texts = [(FLINK / name).read_text() for name in ("compose.yaml", "kubernetes.yaml")]
    slots = {int(one) for t in texts for one in re.findall(r"numberOfTaskSlots: (\d+)", t)}
    assert {managers * one for one in slots} == {request_.runner.workers}


def test_the_dask_cluster_is_complete() -> None:
    cluster = yaml.safe_load(DASK.read_text())
    scheduler = cluster["spec"]["scheduler"]
    (container,) = scheduler["spec"]["containers"]
    named = {one["name"]: one["containerPort"] for one in container["ports"]}
    for port in scheduler["service"]["ports"]:
        assert named[port["targetPort"]] == port["port"]
    assert scheduler["service"]["selector"]["dask.org/cluster-name"] == cluster["metadata"]["name"]
    page = (ROOT / "docs/clusters.md").read_text()
    assert f"tcp://{cluster['metadata']['name']}-scheduler:{named['tcp-comm']}" in page


def test_the_page_links_to_each_file() -> None:
    page = (ROOT / "docs/clusters.md").read_text()
    files = (ROOT / "infra" / "clusters").rglob("*.yaml")
    assert [one.name for one in files if f"(../{one.relative_to(ROOT)})" not in page] == []
