"""Template: what the Flex Template's launcher runs: a request in a bucket → a Dataflow job.

    python -m scenebeam.cloud.template --request gs://bucket/runs/x/request.json --runner DataflowRunner --project …

All options but the first are Beam's own, as the launcher gives them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scenebeam.errors import RequestError, SceneBeamError
from scenebeam.request import RunRequest
from scenebeam.requestfile import parse_document, validate_request
from scenebeam.run.driver import submit
from scenebeam.storage import open_store


def main(arguments: Sequence[str]) -> int:
    """Plan the request and hand its pipeline over. Does not wait for it: the launcher has done its part by then."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--request", required=True)
    known, options = parser.parse_known_args(arguments)
    try:
        submit(_read(known.request), options)
    except SceneBeamError as error:
        print(f"scenebeam: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    return 0


def _read(uri: str) -> RunRequest:
    folder, _, name = uri.rpartition("/")
    content = open_store(folder).read(name)
    if content is None:
        raise RequestError(f"{uri} is not there")
    return validate_request(parse_document(content.decode(), uri))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
