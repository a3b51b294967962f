"""Which files below a folder may be DICOM, and what of it a search cannot see into.

A slice that is passed over makes an incomplete series, which nothing tells from a whole one. So what could be
one and cannot be read is refused, and what is merely not opened is said.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clickvol.errors import DicomSeriesError

_MAGIC_OFFSET_BYTES = 128
# Files of the time before the preamble start with the first tag: little endian group 0008 or 0002, big endian
# 0008.
_BARE_STARTS = (
    b"\x08\x00",
    b"\x02\x00\x00\x00UL",
    b"\x02\x00\x01\x00OB",
    b"\x02\x00\x10\x00UI",
    b"\x00\x08\x00",
)

START_BYTES = _MAGIC_OFFSET_BYTES + 4
"""How much of a file `looks_like_dicom` needs to see."""

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".dc3")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_MAX_LISTED = 3


@dataclass(frozen=True, slots=True)
class Candidates:
    """The files of a folder that start as DICOM does, and a sentence for each thing that was not opened."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def looks_like_dicom(start: bytes) -> bool:
    """Tell from the first `START_BYTES` of a file, or all it has, whether it may be DICOM."""
    return start[_MAGIC_OFFSET_BYTES:] == b"DICM" or start.startswith(_BARE_STARTS)


def is_named_as_slice(name: str) -> bool:
    """Tell whether a file is called as slices are: by a DICOM suffix, a UID, or a number without suffix."""
    return name.lower().endswith(_DICOM_SUFFIXES) or re.fullmatch(r"(?i)(im|img|i)?[\d._-]+", name) is not None


def dicom_candidates(folder: Path, source: str) -> Candidates:
    """Return what may be DICOM in a folder and below it, through links to other folders, too.

    Args:
        folder: where to search.
        source: what messages call it.

    Raises:
        DicomSeriesError: for a folder or a file that cannot be read, a link that leads nowhere, or an empty
            file, where that could be a slice.
    """
    paths, archives, others = [], [], []
    for path in _files_below(folder, source):
        start = _start(path, source)
        if start is None:
            continue
        if looks_like_dicom(start):
            paths.append(path)
        elif path.name.lower().endswith(_ARCHIVE_SUFFIXES) and not path.name.lower().endswith(".nii.gz"):
            archives.append(path.name)
        elif path.name.lower().endswith(_DICOM_SUFFIXES) and not path.name.startswith("._"):
            if not start:
                raise DicomSeriesError(
                    f"{source}: {path.name} is empty, as after an interrupted copy; copy it again, or take it "
                    "out"
                )
            others.append(path.name)
    notes = []
    if archives:
        notes.append(
            f"{_listed(archives)} in the folder was not opened; unpack it if its slices belong to the scan."
        )
    if others:
        notes.append(f"{_listed(others)} is called as a DICOM file, but is none, and was passed over.")
    return Candidates(tuple(paths), tuple(notes))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more


def _files_below(folder: Path, source: str) -> Iterator[Path]:
    """Yield every file in the order of names; no folder twice, however it is linked."""

    def refuse(error: OSError) -> None:
        raise DicomSeriesError(
            f"{source}: the folder {error.filename} cannot be read ({error.strerror}), and slices may lie in "
            "it; change its permissions, or take it out"
        ) from error

    visited = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        place = os.path.realpath(parent)
        if place in visited:
            folders.clear()
            continue
        visited.add(place)
        folders.sort()
        for name in sorted(names):
            yield Path(parent, name)


def _start(path: Path, source: str) -> bytes | None:
    """Return the first bytes of a file; None for what is no file and no slice either."""
    try:
        if not path.is_file():
            if path.is_symlink() and is_named_as_slice(path.name):
                raise DicomSeriesError(
                    f"{source}: {path.name} is a link that leads nowhere, and may be a slice; fetch what it "
                    "links to, or take it out"
                )
            return None
        with path.open("rb") as file:
            return file.read(START_BYTES)
    except OSError as error:
        raise DicomSeriesError(
            f"{source}: {path.name} cannot be read ({error.strerror}), and may be a slice; change its "
            "permissions, or take it out"
        ) from error
