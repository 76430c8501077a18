"""The example in a cloud on this machine: its scenes into the bucket, its request onto the topic, and how it goes.

`python tests/cloud_example.py` does it in a cloud of containers (docker/compose.yaml), whose addresses the environment tells.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from google.api_core.exceptions import AlreadyExists, Conflict
from google.cloud import pubsub_v1

from scenebeam.sandbox.scenes import AREA, COLLECTION, DATES, SCENES, write_sandbox
from scenebeam.storage import gcs, open_store

EXAMPLE = Path(__file__).parents[1] / "config" / "mosaic-thessaloniki.yaml"
PUSHED = {"requests": "launch", "items": "launch", "progress": "report"}
"""Topic → the function to which it is pushed."""


def create_topics(project: str, urls: Mapping[str, str]) -> None:
    """The topics of a deployment, and subscriptions: each to be pulled, two pushed to functions at `urls`."""
    publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
    for topic in ("requests", "items", "progress", "status", "dead"):
        name, subscription = (
            f"projects/{project}/topics/{topic}",
            f"projects/{project}/subscriptions/{topic}",
        )
        try:
            publisher.create_topic(name=name)
        except AlreadyExists:
            continue
        subscriber.create_subscription(name=f"{subscription}-pull", topic=name)
        if topic in PUSHED:
            push = {"push_endpoint": f"{urls[PUSHED[topic]]}/projects/{project}/topics/{topic}"}
            retry = {"minimum_backoff": {"seconds": 1}, "maximum_backoff": {"seconds": 2}}
            wanted = {
                "name": subscription,
                "topic": name,
                "push_config": push,
                "ack_deadline_seconds": 60,
            }
            subscriber.create_subscription(request={**wanted, "retry_policy": retry})


def put_scenes(prefix: str, url: str) -> str:
    """The sandbox's scenes below a prefix; the URL of their catalogue, as the storage server at `url` serves it."""
    store = open_store(prefix)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_sandbox(folder, prefix)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                store.upload(str(path.relative_to(folder)), path)
    return f"{url}/{prefix.removeprefix('gs://')}/catalog.json"


def example(catalog: str, output: str) -> dict[str, Any]:
    """The example's request, on the sandbox."""
    here = {
        "catalog": catalog, "collections": [COLLECTION], "area": {"bbox": list(AREA)}, "dates": DATES, "select": {},
        "output": output,
    }  # fmt: skip
    return {**yaml.safe_load(EXAMPLE.read_text()), **here}


def published(project: str, catalog: str, output: str) -> None:
    """Publish the example's request."""
    topic = f"projects/{project}/topics/requests"
    pubsub_v1.PublisherClient().publish(
        topic, json.dumps(example(catalog, output)).encode()
    ).result(timeout=30)
    print(f"published    {EXAMPLE.name} to {topic}", flush=True)


def stand(project: str, catalog: str, prefix: str, url: str) -> str:
    """Make the example a standing request, announce one of its items, and let the deployment sweep; the id of the series."""
    document = {**example(catalog, f"{prefix}/products/series"), "dates": "2021-06-01/..", "series": True, "run": "series"}  # fmt: skip
    open_store(f"{prefix}/requests").write(
        "standing/thessaloniki.yaml", json.dumps(document).encode()
    )
    publisher = pubsub_v1.PublisherClient()
    topic = f"projects/{project}/topics/requests"
    publisher.publish(topic, b"{}", sweep="series").result(timeout=30)
    series = ""
    while not series:
        time.sleep(0.5)
        with urllib.request.urlopen(f"{url}/series", timeout=30) as answer:
            listed = json.load(answer)["series"]
        series = listed[0]["id"] if listed else ""
    print(f"standing     {prefix}/requests/standing/thessaloniki.yaml is {series}", flush=True)
    item = SCENES[0].item(f"{prefix}/scenes")
    publisher.publish(f"projects/{project}/topics/items", json.dumps(item).encode()).result(
        timeout=30
    )
    print(f"announced    {item['id']}", flush=True)
    publisher.publish(topic, b"{}", sweep="series").result(timeout=30)
    return series


def follow(url: str) -> bool:
    """Report how the only run goes until it has ended, and what it has made; whether it succeeded."""
    shown = ""
    while True:
        with urllib.request.urlopen(f"{url}/runs", timeout=30) as answer:
            runs = json.load(answer)["runs"]
        if runs:
            run = runs[0]
            line = f"{run['state']:12} {run['done']} of {run['tasks']} tasks"
            if line != shown:
                print(line, flush=True)
                shown = line
            if run["ended"]:
                break
        time.sleep(0.5)
    if run["message"]:
        print(run["message"])
    store = open_store(run["output"])
    for name in sorted(store.list()):
        print(f"  {store.uri_for(name)}")
    print(f"its page     {url}{run['links']['self']}", flush=True)
    return bool(run["state"] == "succeeded")


def main() -> int:
    storage, project = os.environ["STORAGE_EMULATOR_HOST"], os.environ["SCENEBEAM_PROJECT"]
    with suppress(Conflict):
        gcs._client().create_bucket("bucket", project=project)
    create_topics(project, {"launch": os.environ["LAUNCH_URL"], "report": os.environ["REPORT_URL"]})
    published(
        project,
        put_scenes("gs://bucket/scenes", storage),
        "gs://bucket/products/mosaic-thessaloniki",
    )
    return 0 if follow(os.environ["STATUS_URL"]) else 1


if __name__ == "__main__":
    sys.exit(main())
