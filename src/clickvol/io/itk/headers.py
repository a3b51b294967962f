"""The text of NRRD and MetaImage headers: what SimpleITK does not say of it, and what it cannot read.

In a file of a stranger a header may name any path of this machine for its voxels, whose content would then come
back as an image.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clickvol.errors import UnreadableVolumeError

_MAX_HEADER_BYTES = 65536

# Of the encodings of the format those that ITK's copy of Teem is built with.
_ENCODINGS = ("raw", "txt", "text", "ascii", "hex", "gz", "gzip")

_MAX_SHOWN = 40

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_DATA_FILE = re.compile(rb"(?im)^(data ?file:[ \t]*)(\S.*?)([ \t]*)$")


def text_fields(path: Path) -> dict[str, str]:
    """Return the "name: value" or "name = value" lines of a header, names in lower case."""
    with path.open("rb") as file:
        text = file.read(_MAX_HEADER_BYTES).decode("latin-1").replace("\r\n", "\n")
    separator = ":" if text.startswith("NRRD") else "="
    fields = {}
    for line in text.split("\n"):
        name, divider, value = line.partition(separator)
        if separator == ":" and not line:
            break  # a blank line ends a NRRD header
        if divider:
            fields[name.strip().lower()] = value.strip()
        if name.strip() == "ElementDataFile":
            break
    return fields


@contextlib.contextmanager
def with_kinds(path: Path) -> Iterator[Path]:
    """Lend a file that ITK can read: the path itself, or a copy of a NRRD that says which axis holds volumes.

    Fields of four axes that do not say so (`kinds`) are valid; ITK takes them for damaged. The axis is the one
    without a direction. UnreadableVolumeError for a NRRD whose encoding ITK does not have.
    """
    try:
        fields = text_fields(path)
    except OSError as error:
        raise UnreadableVolumeError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    _check_axes(path, fields)
    if path.suffix.lower() not in (".nrrd", ".nhdr"):
        yield path
        return
    encoding = fields.get("encoding", "raw").lower()
    if encoding not in _ENCODINGS:
        raise UnreadableVolumeError(
            f"{path}: the encoding {encoding[:_MAX_SHOWN]} is not supported; save it as gzip"
        )
    directions = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""), re.IGNORECASE)
    if "kinds" in fields or [d.lower() for d in directions].count("none") != 1:
        yield path
        return
    kinds = " ".join("list" if d.lower() == "none" else "domain" for d in directions)
    with tempfile.TemporaryDirectory(prefix="clickvol-") as folder, path.open("rb") as file:
        start = file.read(_MAX_HEADER_BYTES)
        end = _BLANK_LINE.search(start)
        header, rest = (start, b"") if end is None else (start[: end.start()], start[end.start() :])
        # A name of a file is relative to its header, which lies elsewhere now.
        header = _DATA_FILE.sub(lambda m: m[1] + _absolute(m[2], path) + m[3], header)
        copy = Path(folder) / f"scan{path.suffix.lower()}"
        with copy.open("wb") as target:
            target.write(header + f"\nkinds: {kinds}".encode() + (rest or b"\n\n"))
            shutil.copyfileobj(file, target)
        yield copy


def _check_axes(path: Path, fields: dict[str, str]) -> None:
    """Refuse numbers of axes that no image has: ITK takes them at their word, and ends the whole program."""
    for name in ("ndims", "dimension", "numberofaxes"):
        stated = fields.get(name)
        if stated is not None and not re.fullmatch(r"0*1?\d", stated):
            raise UnreadableVolumeError(
                f"{path} has a damaged header: it says {stated[:_MAX_SHOWN]!r} for its number of axes; copy it "
                "again"
            )


def _absolute(name: bytes, header: Path) -> bytes:
    text = name.decode("utf-8", "surrogateescape")
    if text.upper().startswith("LIST") or "%" in text:
        return name
    return str(header.resolve().parent / text).encode("utf-8", "surrogateescape")


# Teem's NRRD reader knows both spellings, and any kind of line end.
_NRRD_DATA_FILE = re.compile(rb"(?:^|[\r\n])[ \t]*data ?file[ \t]*:", re.IGNORECASE)
_NRRD_BLANK_LINE = re.compile(rb"\n\r?\n")

_META_DATA_FILE = re.compile(rb"ElementDataFile", re.IGNORECASE)
_META_LOCAL = re.compile(rb"(?:^|\n)[ \t]*ElementDataFile[ \t]*[=:][ \t]*LOCAL[ \t]*\r?\n", re.IGNORECASE)


def refuse_voxels_elsewhere(path: Path) -> None:
    """Refuse a .nrrd, .nhdr, .mha or .mhd whose voxels are not behind its header (UnreadableVolumeError).

    What cannot be told for sure is refused as well: a header longer than 64 KiB, or one that names its voxels
    in an unusual place.
    """
    with path.open("rb") as file:
        start = file.read(_MAX_HEADER_BYTES)
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        is_whole = _is_whole_nrrd(start)
    else:
        is_whole = _is_whole_meta_image(start)
    if not is_whole:
        raise UnreadableVolumeError(
            f"{path} does not hold its own voxels, and no other file is read for it here; give one file "
            "with header and voxels, such as .nii.gz, .nrrd or .mha"
        )


def _is_whole_nrrd(start: bytes) -> bool:
    end = _NRRD_BLANK_LINE.search(start)
    return end is not None and _NRRD_DATA_FILE.search(start, 0, end.start()) is None


def _is_whole_meta_image(start: bytes) -> bool:
    # The field ends the header. Whatever comes before its name must not hold the name, or readers could differ
    # in what they take for the field.
    local, first = _META_LOCAL.search(start), _META_DATA_FILE.search(start)
    return local is not None and first is not None and local.start() <= first.start() < local.end()
