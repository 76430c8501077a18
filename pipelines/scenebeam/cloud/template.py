"""Template: entry point of the Flex Template's launcher, which submits a request to Dataflow.

    python -m scenebeam.cloud.template --request gs://bucket/runs/x/request.json --run x \\
        --progress_topic projects/p/topics/progress --runner DataflowRunner --project …

The launcher passes these three options, which are ours, and pipeline options of Beam.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scenebeam.cloud.ownership import take_output
from scenebeam.cloud.runs import RUNS
from scenebeam.cloud.topics import PubSubProgress
from scenebeam.errors import RequestError, SceneBeamError
from scenebeam.execution.driver import submit
from scenebeam.request import RunRequest
from scenebeam.requestfile import parse_document, validate_request
from scenebeam.storage import open_store


def main(arguments: Sequence[str]) -> int:
    """Plan the request and submit its pipeline, without waiting for the job to finish.

    Args:
        arguments: Command-line arguments.

    Returns:
        The exit code: 0 if the job was submitted, 2 if the request is invalid, 1 for other errors.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--request", required=True)
    parser.add_argument("--run", default="")
    parser.add_argument("--progress_topic", default="")
    known, options = parser.parse_known_args(arguments)
    on_progress = PubSubProgress(known.progress_topic, known.run) if known.progress_topic else None
    try:
        request = _read_request(known.request)
        if request.series is not None:
            take_output(request.output, known.request.rpartition(f"/{RUNS}")[0])
        submit(request, options, on_progress)
    except SceneBeamError as error:
        print(f"scenebeam: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    finally:
        # Also after a failure: the run has written its status into its output by then, and the
        # `report` function picks it up when it is notified.
        if on_progress is not None:
            on_progress()
    return 0


def _read_request(uri: str) -> RunRequest:
    folder, _, key = uri.rpartition("/")
    content = open_store(folder).read(key)
    if content is None:
        raise RequestError(f"{uri} does not exist")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{uri} is not valid UTF-8: {error}") from None
    return validate_request(parse_document(text, uri))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
