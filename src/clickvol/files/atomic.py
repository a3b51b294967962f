"""Writing a file wholly or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from clickvol.errors import OutputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

_TEMPORARY_PREFIX = ".clickvol-"


@contextlib.contextmanager
def atomic_path(target: Path, suffix: str) -> Iterator[Path]:
    """Lend a temporary path beside the target; move it onto the target when the block succeeds.

    The temporary file lies in the same folder, because only within one file system is the move atomic, and ends
    in the suffix (".nii.gz"), by which writers choose a format. A reader sees the old file or the complete new
    one. When the block fails in any way, also by Ctrl-C, the target is untouched and the temporary file
    removed. A symbolic link is followed, and stays a link. OutputError when the file system refuses (no space,
    no permission).
    """
    final = Path(os.path.realpath(target))
    temporary = final.with_name(f"{_TEMPORARY_PREFIX}{secrets.token_hex(6)}{suffix}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(final)
    except OSError as error:
        reason, advice = error.strerror or "the file system refused", "choose another place for the output"
        if error.errno in _DISK_FULL:
            reason, advice = f"disk full ({reason})", f"free space and try again, or {advice}"
        raise OutputError(f"cannot write {target}: {reason}; {advice}") from error
    finally:
        # After the move there is nothing left to remove.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8 as `atomic_path` does; a line ends the same on every system."""
    with atomic_path(path, path.suffix) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def make_folder(folder: Path, advice: str = "choose another folder") -> None:
    """Make a folder and those above it where they are missing; OutputError with the advice."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or "the file system refused"
        raise OutputError(f"cannot make the folder {folder}: {reason}; {advice}") from error


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system has no links, or not to there, copy it (OutputError)."""
    with contextlib.suppress(OSError):
        target.unlink(missing_ok=True)
        os.link(os.path.realpath(source), target)
        return
    with atomic_path(target, target.suffix) as temporary:
        shutil.copyfile(source, temporary)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder nobody else writes to."""
    for abandoned in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        abandoned.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
