"""What lies at a path that somebody gave, and which names no system can have."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from clickvol.errors import UnreadableVolumeError

_MAX_SHOWN = 120

# Behind a colon Windows hides what is written; the words are devices, whatever follows their first dot.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[ .]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


def windows_forbids(name: str) -> bool:
    """Tell whether Windows has no file of this name, or another one than it says."""
    return _FORBIDDEN.search(name) is not None


def suffix_of(name: str, known: Iterable[str]) -> str | None:
    """Return the first of the known suffixes that a file's name has, in lower case; None for none."""
    lower = name.lower()
    return next((suffix for suffix in known if lower.endswith(suffix) and len(lower) > len(suffix)), None)


def kind_of_path(path: Path) -> Literal["folder", "file", "other", "missing"]:
    """Return what lies at a path; links are followed. UnreadableVolumeError where nobody can look."""
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
