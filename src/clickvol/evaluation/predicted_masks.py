"""Masks that another program wrote, one file per scan, such as those of nnU-Net."""

import hashlib
from pathlib import Path

import numpy as np

from clickvol.errors import ConfigError, UnreadableVolumeError
from clickvol.evaluation.contestants import Answer, Scan
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.mask_files import read_mask

_SUFFIX = ".nii.gz"
_DICOM_SUFFIX = ".dcm"


class PredictedMasks:
    """A folder with masks CASE.nii.gz on the grids of the scans; the object where they are not 0.

    A mask may also be CASE.dcm, a DICOM Segmentation or RT Structure Set; the object is all that it holds.

    Args:
        folder: where they lie.

    Raises:
        ConfigError: when there is no such folder, or no mask in it.
    """

    takes_organ_mask = False

    def __init__(self, folder: Path) -> None:
        files = [f for s in (_SUFFIX, _DICOM_SUFFIX) for f in sorted(folder.glob(f"*{s}"))]
        if not files:
            raise ConfigError(
                f"{folder} holds no masks; predictions:DIR takes a folder with CASE{_SUFFIX} or "
                f"CASE{_DICOM_SUFFIX} files"
            )
        self._folder = folder
        states = "".join(f"{file.name} {file.stat().st_size}\n" for file in files)
        self.fingerprint = hashlib.sha256(states.encode("utf-8")).hexdigest()
        self._last: tuple[Scan, Answer] | None = None

    def mask_of(self, scan: Scan) -> Answer:
        """Read the mask of a scan, once for all users of it; no time is counted.

        Raises:
            UnreadableVolumeError: when there is none, or it cannot be read; counted as a failure.
            ConfigError: when it is on another grid; nothing it is scored on would mean anything.
        """
        if self._last is None or self._last[0] is not scan:
            self._last = (scan, self._read(scan))
        return self._last[1]

    def _read(self, scan: Scan) -> Answer:
        path = self._folder / f"{scan.case_id}{_SUFFIX}"
        dicom = self._folder / f"{scan.case_id}{_DICOM_SUFFIX}"
        if dicom.is_file() and not path.exists():
            array = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
            for labelled in read_mask_file(dicom, scan.volume.grid):
                array |= labelled.mask.array
            return Answer(array, 0.0)
        if not path.is_file():
            raise UnreadableVolumeError(f"there is no mask of {scan.case_id} among the predictions")
        mask, grid = read_mask(path), scan.volume.grid
        if not mask.grid.same_place(grid):
            raise ConfigError(
                f"{path} is not on the grid of its scan: {mask.grid.difference_from(grid)}; "
                "write it on the scan's own grid"
            )
        return Answer(mask.array, 0.0)
