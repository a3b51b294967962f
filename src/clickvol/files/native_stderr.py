"""Keeping C++ libraries from writing to the user's terminal."""

import contextlib
import os
import threading
from collections.abc import Iterator

_STDERR_DESCRIPTOR = 2

# Two threads that redirect at once could each restore what the other had set.
_LOCK = threading.RLock()


@contextlib.contextmanager
def silent_native_stderr() -> Iterator[None]:
    """Discard what is written to the process's standard error while the block runs.

    ITK's MetaImage and GDCM readers print to it even when they also raise an exception, and offer
    no switch. Redirecting the descriptor is the only way to say the same thing once, in one line.
    """
    with _LOCK:
        try:
            saved = os.dup(_STDERR_DESCRIPTOR)
        except OSError:  # a process without standard error has nothing to keep silent
            yield
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, _STDERR_DESCRIPTOR)
            yield
        finally:
            os.dup2(saved, _STDERR_DESCRIPTOR)
            os.close(sink)
            os.close(saved)
