"""The exceptions of scenebeam: one small tree.

A message reads: what failed, for which target, why, and what to try.
"""


class SceneBeamError(Exception):
    """Root of every error that scenebeam raises on purpose."""


class RequestError(SceneBeamError):
    """The request cannot be run as it stands; the user can mend it (exit code 2)."""


class CatalogError(SceneBeamError):
    """A STAC catalogue could not be asked, or answered what cannot be used."""


class ReadError(SceneBeamError):
    """A source file could not be read.

    `permanent` tells apart what will never work (404, 403, corrupt data, no CRS) from what may work on
    the next try (timeouts, 5xx after all retries): the first is a missing tile, the second a failed task.
    """

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.permanent = permanent

    def __reduce__(self) -> tuple[object, ...]:
        return _read_error, (str(self), self.permanent)


def _read_error(message: str, permanent: bool) -> ReadError:
    return ReadError(message, permanent=permanent)


class StorageError(SceneBeamError):
    """A product could not be published, listed or read back."""


class RunnerError(SceneBeamError):
    """A Beam runner could not be started, or ended before all tasks were made."""


class CheckError(SceneBeamError):
    """An image is there and readable, but not fit to use (conflicting nodata, blank inside its footprint)."""


def is_permanent(error: SceneBeamError) -> bool:
    """Whether trying again would end the same: a file that is missing, corrupt or unfit stays so."""
    if isinstance(error, ReadError):
        return error.permanent
    return not isinstance(error, CatalogError | StorageError)


class Terminated(KeyboardInterrupt):
    """The process was asked to end by a signal other than Ctrl-C's: whatever handles an interrupt handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def unexpected(error: Exception) -> str:
    """What to tell of an exception that nobody raised on purpose."""
    return f"unexpected {type(error).__name__}: {error}; this is a fault of scenebeam, please report it"
