"""What lies at a path that somebody gave."""

from pathlib import Path
from typing import Literal

from clickvol.errors import UnreadableVolumeError

_MAX_SHOWN = 120


def kind_of_path(path: Path) -> Literal["folder", "file", "other", "missing"]:
    """Return what lies at a path; links are followed.

    Raises:
        UnreadableVolumeError: for one that cannot be looked at: too long, a loop of links, a null byte, or in a
            folder that is closed to this user.
    """
    try:
        if path.is_dir():
            return "folder"
        if path.is_file():
            return "file"
        return "other" if path.exists() else "missing"
    except (OSError, ValueError) as error:
        raise unreadable_path(path, error) from error


def unreadable_path(path: Path, error: OSError | ValueError) -> UnreadableVolumeError:
    """Return the error for a path that the operating system refuses."""
    shown = str(path) if len(str(path)) <= _MAX_SHOWN else f"{str(path)[:_MAX_SHOWN]}..."
    reason = getattr(error, "strerror", None) or str(error)
    return UnreadableVolumeError(
        f"cannot read {shown!r}: {reason}; give the path of a file or folder that can be read"
    )
