"""A zip of DICOM files, unpacked for as long as it is read.

No name inside the archive becomes part of a path: every entry goes to a numbered folder of its own, so that an
entry called `../../x` or `/etc/x` lies where all others do, and a link is nothing but a small text.
"""

import contextlib
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from clickvol.errors import UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.io.dicom.reading.search import START_BYTES, looks_like_dicom

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
        if looks_like_dicom(start):
            shutil.copyfileobj(stream, file, _CHUNK_BYTES)
        return file.tell()


def _last_part(name: str) -> str:
    """Return the name of an entry without its folders, for messages; of harmless characters alone."""
    last = re.split(r"[/\\]", name)[-1]
    harmless = re.sub(r"[^\w.\- ]", "_", last)[-_MAX_NAME_LENGTH:].rstrip(". ").lstrip()
    return harmless or "file"
