"""One process at a time at a file; the lock falls with the process that holds it, however it ends."""

import sys

from clickvol.errors import ConfigError, OutputError


def lock_or_refuse(descriptor: int, busy: str) -> None:
    """Lock an open file until it is closed.

    Args:
        descriptor: of a file opened for writing.
        busy: the message where another process holds the lock.

    Raises:
        ConfigError: when another process holds it.
        OutputError: when its file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # what Linux and Windows say of a held lock
        raise ConfigError(busy) from error
    except OSError as error:
        raise OutputError(f"cannot lock a file: {error.strerror}; choose a folder on a local disk") from error
