"""Template: what the Flex Template's launcher runs: a request in a bucket → a Dataflow job.

    python -m scenebeam.cloud.template --request gs://bucket/runs/x/request.json --run x \\
        --progress_topic projects/p/topics/progress --runner DataflowRunner --project …

All options but these three are Beam's own, as the launcher gives them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scenebeam.cloud.topics import PubSubProgress
from scenebeam.errors import RequestError, SceneBeamError
from scenebeam.request import RunRequest
from scenebeam.requestfile import parse_document, validate_request
from scenebeam.run.driver import submit
from scenebeam.storage import open_store


def main(arguments: Sequence[str]) -> int:
    """Plan the request and hand its pipeline over. Does not wait for it: the launcher has done its part by then."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--request", required=True)
    parser.add_argument("--run", default="")
    parser.add_argument("--progress_topic", default="")
    known, options = parser.parse_known_args(arguments)
    on_progress = PubSubProgress(known.progress_topic, known.run) if known.progress_topic else None
    try:
        submit(_read(known.request), options, on_progress)
    except SceneBeamError as error:
        print(f"scenebeam: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    finally:
        if on_progress is not None:
            on_progress()
    return 0


def _read(uri: str) -> RunRequest:
    folder, _, name = uri.rpartition("/")
    content = open_store(folder).read(name)
    if content is None:
        raise RequestError(f"{uri} is not there")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{uri} is not UTF-8: {error}") from None
    return validate_request(parse_document(text, uri))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
