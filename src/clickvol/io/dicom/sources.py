"""The images that a mask was drawn on: which slices they are, and whose.

What is written beside a scan as DICOM names its images one by one and repeats patient and study.
"""

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError, OutputError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.attributes import OF_PATIENT_AND_STUDY, OF_SERIES
from clickvol.io.dicom.reading.geometry import Stack, stack_slices
from clickvol.io.dicom.reading.headers import ImageFile, checked_series, find_images, read_tags
from clickvol.io.dicom.reading.search import opened_dicom
from clickvol.io.dicom.reading.slices import slices_of
from clickvol.io.dicom.uids import hashed_uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True, slots=True, eq=False)
class SourceSlice:
    """One plane of the scan, as files name it: `frame` from 0, None for a file of one slice."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None
    position_lps_mm: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SourceImages:
    """The images of a scan in the order of its array.

    Attributes:
        slices: one for each index of the d axis, which grows along (row x column direction).
        orientation_lps: (6,) unit vectors along a row, then along a column.
        spacing_hw_mm: distance between rows, then between columns.
        header: patient, study and series; nothing that belongs to one image.
    """

    slices: tuple[SourceSlice, ...]
    grid: VolumeGrid
    orientation_lps: NDArray[np.float64]
    spacing_hw_mm: tuple[float, float]
    header: "Dataset"

    def text(self, keyword: str) -> str:
        """Return an attribute of the header as text; "" where there is none."""
        value = self.header.get(keyword)
        return "" if value is None else str(value)

    def corner_lps_mm(self, index: int, positions_hw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where positions (N, 2) in voxels of a slice lie: (N, 3), in the plane of that very image."""
        steps_mm = positions_hw * self.spacing_hw_mm
        # h grows along a column, w along a row.
        axes = np.stack([self.orientation_lps[3:], self.orientation_lps[:3]])
        return np.asarray(self.slices[index].position_lps_mm + steps_mm @ axes)

    def check_grid(self, grid: VolumeGrid) -> None:
        """Check that a mask lies on the voxels of these images; OutputError when it does not."""
        if not grid.same_place(self.grid):
            raise OutputError(
                f"the mask does not lie on the slices of its DICOM series: "
                f"{grid.difference_from(self.grid)} (was it resampled?); write .nii.gz instead"
            )


def item_of(**values: Any) -> "Dataset":  # noqa: ANN401 - an attribute may be anything
    """Return an item of a sequence, by keywords."""
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def check_is_series(path: str | Path) -> Path:
    """Return the path of a scan if it may hold DICOM images, a folder or a .zip; OutputError for others."""
    if str(path) and (Path(path).is_dir() or Path(path).suffix.lower() == ".zip"):
        return Path(path)
    raise OutputError(
        f"{path or 'the scan'} is not a DICOM series, and a mask as DICOM refers to its images; give a folder "
        "or .zip of DICOM files, or write .nii.gz"
    )


def read_source_images(
    path: str | Path, *, series: str | None = None, grid: VolumeGrid | None = None
) -> SourceImages:
    """Read which images a scan was made of, without their pixels.

    A grid that was read from the series knows its images, and nothing is read again; of several series without
    a choice, the one on it is taken.

    Raises:
        OutputError: when there is no such series, or nothing says what study it belongs to.
        UnreadableVolumeError, DicomSeriesError, BadGeometryError: as `read_volume`.
    """
    path = check_is_series(path)
    known = None if grid is None else grid.file_facts
    if isinstance(known, SourceImages):
        names = (known.text("SeriesInstanceUID"), known.text("SeriesNumber"))
        if series is None or series.strip() in names:
            return known
    with opened_dicom(path) as folder:
        return _chosen(path, find_images(folder).by_series(series), grid)


def _chosen(path: Path, groups: list[list[ImageFile]], grid: VolumeGrid | None) -> SourceImages:
    matching = []
    for files in groups:
        try:
            images = _read_images(files, path)
            if grid is not None and len(groups) > 1:
                images.check_grid(grid)
        except (OutputError, DicomSeriesError):
            if len(groups) == 1:
                raise
            continue  # one of the other series, such as a localizer
        matching.append(images)
    if len(matching) != 1:
        raise OutputError(
            f"{path} holds {len(matching)} series that the mask could lie on, but one is expected; name it "
            "with --series UID"
        )
    return matching[0]


def source_images_of(stack: Stack) -> SourceImages | None:
    """Return the images of a stack; None where something is missing that a mask refers to."""
    try:
        return _images(stack)
    except OutputError:
        return None


def _read_images(files: list[ImageFile], source: Path) -> SourceImages:
    kept, _ = checked_series(files, str(source))
    return _images(stack_slices([s for file in kept for s in slices_of(file)]))


def _images(stack: Stack) -> SourceImages:
    first = stack.slices[0]
    for one in stack.slices:
        if one.mosaic is not None:
            raise OutputError(
                f"{one.path.name} is a mosaic, and a mask as DICOM cannot refer to its tiles; write .nii.gz "
                "instead"
            )
        if not (one.sop_class_uid and one.sop_instance_uid):
            raise OutputError(
                f"{one.path.name} has no SOP Class or Instance UID to refer to; write the mask as .nii.gz"
            )
    slices = tuple(
        SourceSlice(s.sop_class_uid, s.sop_instance_uid, s.frame if s.is_frame else None, s.position_lps_mm)
        for s in stack.slices
    )
    return SourceImages(
        slices, stack.grid, first.orientation_lps, first.spacing_hw_mm, _common_header(first.path)
    )


def _common_header(path: Path) -> "Dataset":
    from pydicom.dataset import Dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = read_tags(path, (*OF_PATIENT_AND_STUDY, *OF_SERIES))
        missing = [keyword for keyword in _NEEDED if keyword not in values]
        if missing:
            raise OutputError(f"{path.name} has no {missing[0]} to refer to; write the mask as .nii.gz")
        header = Dataset()
        for keyword, value in values.items():
            # What breaks its type cannot be repeated.
            with contextlib.suppress(TypeError, ValueError, ArithmeticError, AttributeError):
                setattr(header, keyword, value)
    if not header.get("FrameOfReferenceUID"):
        # Without one nothing can be placed. Made of the series, so that two masks of it share it.
        header.FrameOfReferenceUID = hashed_uid(f"frame of reference of {header.SeriesInstanceUID}")
    return header
