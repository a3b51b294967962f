"""Which files of this machine a request may name: scans under the allowed root, nothing else. Torch-free."""

import os
from pathlib import Path

from clickvol.server.refusal import RefusedError

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip")
"""Files that hold a whole scan. Headers whose voxels lie in another file (.nhdr, .mhd) are not taken: they
could name any file of this machine."""

_OUTSIDE = "this path is not under the folder that the server was given; give one of a scan in it"


def scan_suffix(name: str) -> str:
    """Return the suffix of a scan's file name, in lower case.

    Raises:
        RefusedError: 415, when it is none that can be read here.
    """
    lower = name.lower()
    for suffix in SCAN_SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return suffix
    raise RefusedError(415, f"this is no file of a scan; give one that ends with {', '.join(SCAN_SUFFIXES)}")


def find_under_root(root: Path | None, text: str) -> Path:
    """Return the scan that a request names.

    Args:
        root: folder that may be read; None: none may.
        text: path relative to the root, or absolute and under it. Links are followed before anything is
            compared, those inside a DICOM folder too.

    Raises:
        RefusedError: 403 when it lies elsewhere or there is no root, 404 when there is nothing, 415 when it is
            no scan.
    """
    if root is None:
        raise RefusedError(403, "this server opens no files by path; upload the scan, or start it with --root")
    try:
        base = Path(os.path.realpath(root))
        place = Path(os.path.realpath(base / text))
        if place != base and base not in place.parents:
            raise RefusedError(403, _OUTSIDE)
        if place.is_dir():
            _check_folder(base, place)
            return place
        if not place.is_file():
            raise RefusedError(
                404,
                "there is no such scan under the folder that the server was given; check the path",
            )
    except (OSError, ValueError) as error:  # too long, a loop of links, a null byte
        raise RefusedError(404, "this cannot be the path of a scan; check it") from error
    scan_suffix(place.name)
    return place


def _check_folder(base: Path, folder: Path) -> None:
    """Refuse a folder with links that lead out of the root."""
    for parent, names, files in os.walk(folder):
        for name in (*names, *files):
            entry = Path(parent) / name
            if entry.is_symlink() and base not in Path(os.path.realpath(entry)).parents:
                raise RefusedError(403, _OUTSIDE)
