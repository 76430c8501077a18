"""Kinds of errors are stable, because outcomes and tables record them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

import scenebeam.cloud.launch
import scenebeam.raster.compose  # noqa: F401
from scenebeam.errors import ReadError, SceneBeamError

KINDS = {
    "SceneBeamError",
    "RequestError",
    "MissingExtraError",
    "NoScenesError",
    "CatalogError",
    "ReadError",
    "CheckError",
    "StorageError",
    "RunnerError",
    "LayerError",
    "RetryableError",
    "LaunchError",
}


def tree(root: type[SceneBeamError]) -> Iterator[type[SceneBeamError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_every_public_error_has_a_kind_of_its_own() -> None:
    public = [error for error in tree(SceneBeamError) if not error.__name__.startswith("_")]
    assert all("kind" in vars(error) for error in public)
    assert sorted(error.kind for error in public) == sorted(KINDS)


def test_a_full_disk_of_temporary_files_is_no_bug() -> None:
    import errno

    from scenebeam.errors import unexpected

    assert "set TMPDIR" in unexpected(OSError(errno.ENOSPC, "No space left on device"))
    assert "this is a bug" in unexpected(OSError(errno.EIO, "Input/output error"))
    assert "this is a bug" in unexpected(KeyError("x"))


@pytest.mark.parametrize("permanent", [False, True])
def test_a_read_error_survives_pickling(permanent: bool) -> None:
    copy = pickle.loads(pickle.dumps(ReadError("a.tif is gone", permanent=permanent)))
    assert (str(copy), copy.permanent, copy.kind) == ("a.tif is gone", permanent, "ReadError")
