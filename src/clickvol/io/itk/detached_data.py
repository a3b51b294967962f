"""NRRD and MetaImage headers that name another file to read the voxels from.

In a file of a stranger that name may be any path of this machine, whose content would then come back as an
image.
"""

import re
from pathlib import Path

from clickvol.errors import UnreadableVolumeError

_MAX_HEADER_BYTES = 65536

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
