"""The scans under the root, under the ids that MONAI Label's clients have for them. Torch-free."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from clickvol.errors import ClickvolError, UnreadableVolumeError
from clickvol.io.dicom.reading.headers import find_images
from clickvol.io.dicom.reading.search import is_dicom_file
from clickvol.io.input_path import suffix_of
from clickvol.server.refusal import RefusedError
from clickvol.server.scans import SCAN_SUFFIXES, find_under_root
from clickvol.server.served_session import ScanRecord

# A folder of a whole hospital is no data set; a client shows these in a list.
_MAX_IMAGES = 5_000
_MAX_FILES = 200_000

_PARTS = "series"


@dataclass(frozen=True, slots=True)
class ImageList:
    """What lies under a root.

    Attributes:
        images: the places of each scan, by its id: one file, or the folders that hold the slices of a series.
        skipped: folders whose DICOM files are no series that can be read, below the root, and why.
    """

    images: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def suffix(self, image: str) -> str:
        """Return the suffix of an image's file; "" for a series."""
        place = self.images.get(image, (Path(),))[0]
        return "" if place.is_dir() else "".join(place.suffixes[-2:])


def list_images(root: Path | None) -> ImageList:
    """Return the scans under a folder.

    A file has its path below the root without suffix as its id ("case-07/ct"), a DICOM series its
    SeriesInstanceUID, which is what OHIF asks for. Links are not followed, and nothing is opened that is no
    regular file.
    """
    listed = ImageList()
    if root is None:
        return listed
    num_files = 0
    for parent, folders, names in os.walk(root):
        folders.sort()
        num_files += len(names)
        if num_files > _MAX_FILES or len(listed.images) >= _MAX_IMAGES:
            break
        folder = Path(parent)
        files = [folder / name for name in sorted(names) if _is_regular(folder / name)]
        for file in files:
            suffix = suffix_of(file.name, SCAN_SUFFIXES)
            if suffix is not None:
                listed.images.setdefault(file.relative_to(root).as_posix()[: -len(suffix)], (file,))
        if any(is_dicom_file(file) for file in files):
            try:
                uids = _series_in(files)
            except ClickvolError as error:
                listed.skipped[folder.relative_to(root).as_posix()] = str(error).replace(f"{root}/", "")
                continue
            for uid in uids:
                listed.images[uid] = (*listed.images.get(uid, ()), folder)
    return listed


def record_of_image(root: Path | None, image_id: str, session_folder: Path) -> ScanRecord:
    """Return which scan a session is to work on; 404 without one of this id, 403 for links out of the root.

    The parts of a series that lies in several folders are put together in the session's folder, as links.
    """
    listed = list_images(root)
    places = listed.images.get(image_id)
    if places is None:
        skipped = f"; {len(listed.skipped)} folders cannot be read" if listed.skipped else ""
        raise RefusedError(
            404, f"there is no such image here; upload it, or see /datastore/ for those there are{skipped}"
        )
    checked = [find_under_root(root, str(place)) for place in places]
    if checked[0].is_file():
        return ScanRecord(scan=str(checked[0]), is_upload=False)
    if len(checked) == 1 and not any(entry.is_dir() for entry in checked[0].iterdir()):
        return ScanRecord(scan=str(checked[0]), is_upload=False, series=image_id)
    whole = session_folder / _PARTS
    whole.mkdir(mode=0o700)
    for number, folder in enumerate(checked):
        for file in filter(_is_regular, sorted(folder.iterdir())):
            (whole / f"{number:03d}-{file.name}").symlink_to(file)
    return ScanRecord(scan=_PARTS, is_upload=True, series=image_id)


def _series_in(files: list[Path]) -> tuple[str, ...]:
    """Return the UIDs of the series with slices among the files of one folder."""
    with tempfile.TemporaryDirectory(prefix="clickvol-") as alone:
        for file in files:
            (Path(alone) / file.name).symlink_to(file)
        uids = dict.fromkeys(file.series_uid for file in find_images(Path(alone), source="this folder").files)
    if not uids:
        raise UnreadableVolumeError("its DICOM files are no images; a mask or a plan is no scan")
    return tuple(uids)


def _is_regular(path: Path) -> bool:
    """Tell whether a path is a file and no link; opening a pipe would wait for ever."""
    try:
        return path.is_file() and not path.is_symlink()
    except OSError:
        return False
