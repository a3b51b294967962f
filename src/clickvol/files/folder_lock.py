"""One process at a time in a folder; the lock falls with the process that holds it, however it ends."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from clickvol.errors import OutputError
from clickvol.files.file_lock import lock_or_refuse

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
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    try:
        busy = f"another process is working in {folder}; wait for it, or choose another folder"
        lock_or_refuse(descriptor, busy)
        yield
    finally:
        os.close(descriptor)
