"""The exceptions of scenebeam.

    Exception
    └── SceneBeamError
        ├── RequestError       the request is invalid (exit code 2)
        │   ├── NoScenesError       no scene is left
        │   └── MissingExtraError   a package of an extra is not installed (scenebeam.extras)
        ├── CatalogError       the STAC catalog cannot be searched
        ├── ReadError          a source file cannot be read; `permanent`: a retry is futile
        ├── CheckError         an image is readable, but not fit to use
        ├── StorageError       a product cannot be published, listed or read back
        ├── RunnerError        the Beam runner has failed
        ├── LayerError         a source of a composite is unusable (scenebeam.raster.compose)
        ├── RetryableError     a message to deliver again (scenebeam.cloud.launch)
        └── LaunchError        a job that cannot be started (scenebeam.cloud.launch)

    KeyboardInterrupt
    └── Terminated             the process has received SIGTERM or SIGHUP

Messages say what failed, for which target, why, and what to try. Messages may change between
releases; `kind` is stable, and is what outcomes and tables record for programs to compare.
"""

from __future__ import annotations

import errno
import tempfile
from typing import ClassVar


class SceneBeamError(Exception):
    """Base class of all errors that scenebeam raises deliberately."""

    kind: ClassVar[str] = "SceneBeamError"
    """Stable, machine-readable name of the error."""


class RequestError(SceneBeamError):
    """The request cannot be run as it is; the user can correct it (exit code 2)."""

    kind = "RequestError"


class NoScenesError(RequestError):
    """No scene is left for the request; a later search may find some."""

    kind = "NoScenesError"


class CatalogError(SceneBeamError):
    """A STAC catalog could not be searched, or returned an unusable response."""

    kind = "CatalogError"


class ReadError(SceneBeamError):
    """A source file could not be read.

    A permanent error (404, 403, corrupt data, no CRS) occurs again on every attempt: the tile is
    missing. Any other (timeouts, 5xx after all retries) fails the task, and the next run retries
    it.
    """

    kind = "ReadError"

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.permanent = permanent

    # Exceptions are pickled with their positional arguments only, which would lose `permanent`.
    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle_read_error, (str(self), self.permanent)


def _unpickle_read_error(message: str, permanent: bool) -> ReadError:
    return ReadError(message, permanent=permanent)


class CheckError(SceneBeamError):
    """An image is readable, but not fit to use: conflicting nodata, blank inside its footprint."""

    kind = "CheckError"


class StorageError(SceneBeamError):
    """A product could not be published, listed or read back."""

    kind = "StorageError"


class RunnerError(SceneBeamError):
    """A Beam runner could not be started, or ended before all tasks were made."""

    kind = "RunnerError"


class Terminated(KeyboardInterrupt):
    """The process has received a signal to end other than that of Ctrl-C.

    It is a KeyboardInterrupt, so that whatever handles Ctrl-C handles it too.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        """Number of the signal."""


def is_permanent(error: SceneBeamError) -> bool:
    """Return whether an error would occur again if the task were retried.

    Files that are missing, corrupt or unfit remain so. Catalogs and storage may recover.
    """
    if isinstance(error, ReadError):
        return error.permanent
    return not isinstance(error, CatalogError | StorageError)


def unexpected(error: Exception) -> str:
    """Return the message for an exception that scenebeam did not raise deliberately."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"the disk of temporary files ({tempfile.gettempdir()}) is full: free some space, or "
            "set TMPDIR to a folder on another disk; finished files are kept"
        )
    return (
        f"unexpected {type(error).__name__}: {error}; this is a bug in scenebeam, please report it"
    )
