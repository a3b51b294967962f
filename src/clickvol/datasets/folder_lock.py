"""One process at a time in a folder; the lock falls with the process that holds it, however it ends."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from clickvol.errors import ConfigError, OutputError

_LOCK_NAME = ".lock"


@contextlib.contextmanager
def only_process_in(folder: Path) -> Iterator[None]:
    """Hold a folder for the length of a block; it is made where it is missing.

    Raises:
        ConfigError: when another process holds it.
        OutputError: when the folder cannot be made or has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        msg = f"cannot write to {folder}: {error.strerror}; choose another folder"
        raise OutputError(msg) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # what Linux and Windows say of a held lock
        msg = f"another process is working in {folder}; wait for it, or choose another folder"
        raise ConfigError(msg) from error
    except OSError as error:
        msg = f"cannot lock {folder}: {error.strerror}; choose a folder on a local disk"
        raise OutputError(msg) from error
