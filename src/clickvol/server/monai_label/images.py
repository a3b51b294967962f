"""The scans under the root, under the ids that MONAI Label's clients have for them. Torch-free."""

import os
from pathlib import Path

from clickvol.io.dicom.reading.search import START_BYTES, looks_like_dicom
from clickvol.io.dicom.reading.series import list_series
from clickvol.server.refusal import RefusedError
from clickvol.server.scans import SCAN_SUFFIXES, find_under_root

# A folder of a whole hospital is no data set; a client shows these in a list.
_MAX_IMAGES = 5_000
_MAX_FILES = 200_000


def list_images(root: Path | None) -> dict[str, Path]:
    """Return the scans under a folder.

    Args:
        root: the folder; None: there are none.

    Returns:
        The path of each: a file by its path below the root without suffix ("case-07/ct"), a DICOM series by its
        SeriesInstanceUID, which is what OHIF asks for. Links are not followed.
    """
    images: dict[str, Path] = {}
    if root is None:
        return images
    num_files = 0
    for parent, folders, names in os.walk(root):
        folders.sort()
        num_files += len(names)
        if num_files > _MAX_FILES or len(images) >= _MAX_IMAGES:
            break
        folder = Path(parent)
        for name in sorted(names):
            suffix = next((s for s in SCAN_SUFFIXES if name.lower().endswith(s)), None)
            if suffix is not None and not (folder / name).is_symlink():
                relative = (folder / name).relative_to(root).as_posix()
                images.setdefault(relative[: -len(suffix)], folder / name)
        if names and _is_dicom(folder / min(names)):
            for series in list_series(folder):
                images.setdefault(series.uid, folder)
    return images


def find_image(root: Path | None, image_id: str) -> Path:
    """Return the path of a scan.

    Raises:
        RefusedError: 404 when there is none with this id, 403 when links lead out of the root.
    """
    path = list_images(root).get(image_id)
    if path is None:
        raise RefusedError(
            404, "there is no such image here; upload it, or see /datastore/ for those there are"
        )
    return find_under_root(root, str(path))


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return looks_like_dicom(file.read(START_BYTES))
    except OSError:
        return False
