"""One process at a time at a file or in a folder: `filelock`, with messages that say what to do.

A lock falls with the process that holds it, however that ends; its empty file stays.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

from clickvol.errors import ConfigError, OutputError
from clickvol.files.atomic import make_folder

_LOCK_NAME = ".lock"


def acquire_lock(path: Path, busy: str) -> FileLock:
    """Hold a lock file until `release()` is called, on any thread; ConfigError where another process does.

    OutputError when the file cannot be written, or its file system has no locks.
    """
    lock = FileLock(path, thread_local=False)
    if not _try(lock):
        raise ConfigError(busy)
    return lock


def lock_or_refuse(descriptor: int, busy: str) -> None:
    """Lock a file that is open for writing, until it is closed; errors as `acquire_lock`."""
    try:
        is_ours = lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        raise OutputError(f"cannot lock a file: {error.strerror}; choose a folder on a local disk") from error
    if not is_ours:
        raise ConfigError(busy)


@contextlib.contextmanager
def wait_for_lock(path: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Keep other processes out of a block that holds the same lock file; wait, and tell so once."""
    lock = FileLock(path, thread_local=False)
    if not _try(lock):
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def only_process_in(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, for the length of a block; errors as `acquire_lock`."""
    make_folder(folder)
    busy = f"another process is working in {folder}; wait for it, or choose another folder"
    lock = acquire_lock(folder / _LOCK_NAME, busy)
    try:
        yield
    finally:
        lock.release()


def _try(lock: FileLock) -> bool:
    """Return whether the lock is ours now."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or "its file system has no locks"
        raise OutputError(f"cannot lock {lock.lock_file}: {reason}; choose a folder on a local disk") from error
    return True
