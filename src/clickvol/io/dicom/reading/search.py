"""Which files below a folder or in a zip may be DICOM, and what of it a search cannot see into.

A slice that is passed over makes an incomplete series, which nothing tells from a whole one. So what could be
one and cannot be read is refused, and what is merely not opened is said.

A zip is unpacked for as long as it is read. No name inside becomes part of a path: every entry goes to a
numbered folder of its own, so that an entry called `../../x` or `/etc/x` lies where all others do, and a link
is nothing but a small text.
"""

import contextlib
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from clickvol.errors import DicomSeriesError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits

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
"""How much of a file `is_dicom_start` needs to see."""

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".dc3")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_MAX_LISTED = 3

_Kind = Literal["image", "archive", "other", "no file", "ignored"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The files of a folder that start as DICOM does, and a sentence for each thing that was not opened."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def is_dicom_start(start: bytes) -> bool:
    """Tell from the first `START_BYTES` of a file, or all it has, whether it may be DICOM."""
    return start[_MAGIC_OFFSET_BYTES:] == b"DICM" or start.startswith(_BARE_STARTS)


def is_dicom_file(path: Path) -> bool:
    """Tell whether a file may be DICOM; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return is_dicom_start(file.read(START_BYTES))
    except OSError:
        return False


def is_named_as_slice(name: str) -> bool:
    """Tell whether a file is called as slices are: by a DICOM suffix, a UID, or a number without suffix."""
    return name.lower().endswith(_DICOM_SUFFIXES) or re.fullmatch(r"(?i)(im|img|i)?[\d._-]+", name) is not None


def dicom_candidates(folder: Path, source: str) -> Candidates:
    """Return what may be DICOM in a folder and below it, through links to other folders, too.

    DicomSeriesError for a folder or a file that cannot be read, a link that leads nowhere, or an empty file,
    where that could be a slice.
    """
    by_kind: dict[_Kind, list[Path]] = {"image": [], "archive": [], "other": [], "no file": [], "ignored": []}
    for path in _files_below(folder, source):
        by_kind[_kind(path, source)].append(path)
    why_passed_over: dict[_Kind, str] = {
        "archive": "in the folder was not opened; unpack it if its slices belong to the scan",
        "other": "is called as a DICOM file, but is none, and was passed over",
        "no file": "leads nowhere or is no ordinary file, and was passed over",
    }
    notes = [f"{_listed(by_kind[kind])} {why}." for kind, why in why_passed_over.items() if by_kind[kind]]
    return Candidates(tuple(by_kind["image"]), tuple(notes))


def _kind(path: Path, source: str) -> "_Kind":
    """Tell what a file is to a search, and refuse one that could be a slice and cannot be read."""
    start, name = _start(path, source), path.name.lower()
    if start is not None and is_dicom_start(start):
        return "image"
    if is_named_as_slice(name) and (start is None or not start.strip(b"\0")):
        what = "is empty, as after an interrupted copy"
        if start is None:
            what = "is a link that leads nowhere, or no ordinary file"
        raise DicomSeriesError(
            f"{source}: {path.name} {what}, and may be a slice; copy it again, or take it out"
        )
    if start is None:
        return "no file"
    if name.endswith(_ARCHIVE_SUFFIXES) and not name.endswith((".nii.gz", ".nii.zst")):
        return "archive"
    return "other" if name.endswith(_DICOM_SUFFIXES) and not name.startswith("._") else "ignored"


def _listed(paths: list[Path]) -> str:
    more = f" and {len(paths) - _MAX_LISTED} more" if len(paths) > _MAX_LISTED else ""
    return ", ".join(path.name for path in paths[:_MAX_LISTED]) + more


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
    """Return the first bytes of a file; None for what is no ordinary file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(START_BYTES)
    except OSError as error:
        raise DicomSeriesError(
            f"{source}: {path.name} cannot be read ({error.strerror}), and may be a slice; change its "
            "permissions, or take it out"
        ) from error


# A dynamic CT has some ten thousand slices. More entries are a mistake or an attack: the directory of an
# archive is read into memory, and every entry costs a file.
_MAX_ENTRIES = 100_000

_CHUNK_BYTES = 1 << 20
_FLAG_ENCRYPTED = 0x1
_MAX_NAME_LENGTH = 100


@contextlib.contextmanager
def opened_dicom(path: Path, limits: ReadLimits | None = None) -> Iterator[Path]:
    """Lend the folder that holds the DICOM files: the path itself, or what a zip unpacks to.

    That of a zip is temporary, and is removed in the end, whatever happens. It holds each file under the last
    part of its name, in the order of the names; of those that are not DICOM the beginning, so that a search
    passes over the same as in a folder.

    Raises:
        UnreadableVolumeError: for a file that is no zip, is damaged, encrypted or has too many entries, or
            where the disk is too small.
        ScanTooLargeError: for a zip that unpacks to more than the limit.
    """
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="clickvol-") as folder:
        _unpack(path, Path(folder), limits)
        yield Path(folder)


def _unpack(path: Path, folder: Path, limits: ReadLimits | None) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked_entries(path, archive, folder, limits)
            unpacked = 0
            for number, entry in enumerate(entries):
                with archive.open(entry) as stream:
                    unpacked += _unpack_entry(stream, folder / f"{number:06d}", entry.filename)
                if limits is not None:
                    limits.check_bytes(unpacked, str(path))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise UnreadableVolumeError(
            f"{path} is not a zip or is damaged; copy it again, or unpack it and give the folder"
        ) from error
    except OSError as error:
        raise UnreadableVolumeError(
            f"cannot unpack {path}: {error.strerror or error}; unpack it and give the folder"
        ) from error


def _checked_entries(
    path: Path, archive: zipfile.ZipFile, folder: Path, limits: ReadLimits | None
) -> list[zipfile.ZipInfo]:
    """Return the files of the archive by name, after what its directory says of them was checked."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    entries.sort(key=lambda entry: entry.filename)
    if len(entries) > _MAX_ENTRIES:
        raise UnreadableVolumeError(
            f"{path} has {len(entries)} entries, but at most {_MAX_ENTRIES} are expected of a series; zip one "
            "series alone"
        )
    if any(entry.flag_bits & _FLAG_ENCRYPTED for entry in entries):
        raise UnreadableVolumeError(f"{path} is encrypted; unpack it with its password and give the folder")
    # Python's zipfile never hands out more than the directory says, so that this bounds what is written.
    promised = sum(entry.file_size for entry in entries)
    if limits is not None:
        limits.check_bytes(promised, str(path))
    free = shutil.disk_usage(folder).free
    if promised > free:
        raise UnreadableVolumeError(
            f"{path} unpacks to {promised} bytes, but {folder.parent} has {free} left; make room, "
            "or set TMPDIR to a larger disk"
        )
    return entries


def _unpack_entry(stream: IO[bytes], folder: Path, name: str) -> int:
    """Write an entry, of what is not DICOM the beginning alone; return how many bytes were written."""
    start = stream.read(START_BYTES)
    folder.mkdir()
    with (folder / _last_part(name)).open("wb") as file:
        file.write(start)
        if is_dicom_start(start):
            shutil.copyfileobj(stream, file, _CHUNK_BYTES)
        return file.tell()


def _last_part(name: str) -> str:
    """Return the name of an entry without its folders, for messages; of harmless characters alone."""
    last = re.split(r"[/\\]", name)[-1]
    harmless = re.sub(r"[^\w.\- ]", "_", last)[-_MAX_NAME_LENGTH:].rstrip(". ").lstrip()
    return harmless or "file"
