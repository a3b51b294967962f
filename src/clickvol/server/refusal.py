"""Requests that are turned down, and which HTTP status each kind of error has. Torch-free."""

import errno

from clickvol.errors import (
    CancelledError,
    ClickError,
    ClickvolError,
    ConfigError,
    DeviceError,
    OutputError,
    ScanTooLargeError,
    UnreadableVolumeError,
)

NOT_ENOUGH_STORAGE = 507
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The first class that fits decides.
_STATUS_BY_CLASS: tuple[tuple[type[ClickvolError], int], ...] = (
    (CancelledError, 409),
    (ClickError, 422),
    (ScanTooLargeError, 413),
    (UnreadableVolumeError, 422),
    (ConfigError, 422),
    (DeviceError, 503),
)


class RefusedError(ClickvolError):
    """A request that the server turns down.

    Args:
        status: the HTTP status that says so.
        message: one line for the user.
        retry_after_seconds: when to try again, where waiting helps.
    """

    def __init__(self, status: int, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


def status_of(error: ClickvolError) -> int:
    """Return the HTTP status of an error that a user can mend."""
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, OutputError):
        # ITK says what the disk said as a RuntimeError.
        is_disk = isinstance(error.__cause__, OSError | RuntimeError)
        return NOT_ENOUGH_STORAGE if is_disk else 422
    return next((status for kind, status in _STATUS_BY_CLASS if isinstance(error, kind)), 422)


def storage_refusal(error: OSError) -> RefusedError:
    """Return what to say where the server's disk refuses; without the path, which is the server's own."""
    if error.errno in _NO_SPACE:
        msg = "the server's disk is full; nothing was changed; make room there and try again"
    else:
        reason = (error.strerror or "the file system refused").lower()
        msg = f"the server cannot write to its disk ({reason}); nothing was changed; tell its owner"
    return RefusedError(NOT_ENOUGH_STORAGE, msg)
