"""A folder or a zip of DICOM files to one volume."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.reading.archive import opened_dicom
from clickvol.io.dicom.reading.gantry_tilt import (
    GantryTilt,
    rectangular_grid,
    resample_tilted,
    tilt_degrees,
)
from clickvol.io.dicom.reading.geometry import stack_slices
from clickvol.io.dicom.reading.pixels import read_stored_pixels
from clickvol.io.dicom.reading.slices import DicomSlice, ImageFile, find_images, slices_of
from clickvol.io.volume import Modality, Volume
from clickvol.io.voxel_values import clean_values, scale_values


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSummary:
    """What one series of a folder is, to choose it by.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, or None where there is none.
        description: SeriesDescription, may be empty.
        modality: as the file says, such as "CT", "MR" or "PT".
        num_slices: files, or frames of multi-frame files.
    """

    uid: str
    number: int | None
    description: str
    modality: str
    num_slices: int

    def __str__(self) -> str:
        number = "without number" if self.number is None else f"number {self.number}"
        return f"[{number}: {self.description!r}, {self.modality}, {self.num_slices} slices, UID {self.uid}]"


def list_series(path: str | Path, *, limits: ReadLimits | None = None) -> list[SeriesSummary]:
    """Return the series of images in a folder or a zip, by number.

    Args:
        path: a folder, searched itself, and below only where it holds no DICOM image; or a .zip file, searched
            wholly.
        limits: what a zip may unpack to; None for any size.

    Raises:
        UnreadableVolumeError: when there is no DICOM image, or the zip cannot be unpacked.
    """
    path = Path(path)
    if not path.is_dir() and path.suffix.lower() != ".zip":
        raise UnreadableVolumeError(
            f"{path} is not a folder; give the folder or the .zip that holds the DICOM files"
        )
    with opened_dicom(path, limits) as folder:
        return [_summary(files) for files in _grouped(folder, str(path), limits)]


def read_dicom(
    path: Path,
    *,
    series: str | None = None,
    gantry_tilt: GantryTilt = "keep",
    limits: ReadLimits | None = None,
) -> Volume:
    """Read a series of classic slices or an enhanced multi-frame object.

    Args:
        path: a folder, searched itself, and below only where it holds no DICOM image; or a .zip file, searched
            wholly.
        series: SeriesInstanceUID or SeriesNumber; None where there is only one.
        gantry_tilt: "keep" a tilted series on its sheared grid, "refuse" it, or "resample" it to a rectangular
            one. Only with "keep" does a mask fit the slices of the file.
        limits: what may be read; None for any size.

    Returns:
        The scan, rescaled (Hounsfield units for CT). d grows along (row x column direction).

    Raises:
        UnreadableVolumeError: no DICOM image, one without content, or a zip that cannot be unpacked.
        ScanTooLargeError: more than the limits allow.
        DicomSeriesError: several series and no choice, not one regular stack of slices, or a tilt that is
            refused.
        BadGeometryError: spacing or orientation that cannot be used.
    """
    source = str(path)
    with opened_dicom(path, limits) as folder:
        files = _choose(source, _grouped(folder, source, limits), series)
        slices = [s for file in files for s in slices_of(file)]
        ordered, grid, geometry_notes = stack_slices(slices)
        tilt = _allowed_tilt(grid, gantry_tilt, source)
        if limits is not None:
            needed = rectangular_grid(grid, source) if tilt and gantry_tilt == "resample" else grid
            limits.check_voxels(math.prod(needed.shape_dhw), source)
        array, value_notes = clean_values(_read_array(ordered), source)
    tilt_notes: tuple[str, ...] = ()
    if tilt:
        outcome = "the grid is sheared accordingly"
        if gantry_tilt == "resample":
            array, grid = resample_tilted(array, grid, source)
            outcome = "the slices were resampled to a rectangular grid"
        tilt_notes = (f"The gantry was tilted by {tilt:.1f} degrees; {outcome}.",)
    modality = _summary(files).modality
    known: tuple[Modality, ...] = get_args(Modality)
    return Volume(
        array=array,
        grid=grid,
        modality=next((m for m in known if m == modality), "unknown"),
        source=source,
        notes=(*geometry_notes, *tilt_notes, *value_notes),
    )


def _allowed_tilt(grid: VolumeGrid, gantry_tilt: GantryTilt, source: str) -> float:
    """Return the tilt in degrees, 0 for none.

    Raises:
        DicomSeriesError: for a tilt where it is to be refused.
    """
    tilt = tilt_degrees(grid)
    if tilt and gantry_tilt == "refuse":
        raise DicomSeriesError(
            f"{source}: the gantry was tilted by {tilt:.1f} degrees, but slices straight above each other are "
            "expected; read the series with its tilt kept or resampled"
        )
    return tilt


def _grouped(folder: Path, source: str, limits: ReadLimits | None) -> list[list[ImageFile]]:
    groups: dict[str, list[ImageFile]] = {}
    for file in find_images(folder, source=source, limits=limits):
        groups.setdefault(file.series_uid, []).append(file)
    if not groups:
        raise UnreadableVolumeError(
            f"{source} holds no DICOM images; give the folder or the .zip of a CT, MR or PET series, or a "
            ".nii.gz, .nrrd or .mha file"
        )
    return sorted(groups.values(), key=_order)


def _order(files: list[ImageFile]) -> tuple[float, str]:
    summary = _summary(files)
    return (float("inf") if summary.number is None else summary.number, summary.uid)


def _summary(files: Sequence[ImageFile]) -> SeriesSummary:
    header = files[0].header
    number = header.get("SeriesNumber")
    return SeriesSummary(
        uid=files[0].series_uid,
        number=None if number is None or number == "" else int(number),
        description=str(header.get("SeriesDescription", "")),
        modality=str(header.get("Modality", "unknown")),
        num_slices=sum(file.num_frames for file in files),
    )


def _choose(source: str, groups: list[list[ImageFile]], series: str | None) -> list[ImageFile]:
    wanted = groups
    if series is not None:
        requested = series.strip()
        wanted = [g for g in groups if requested == _summary(g).uid]
        wanted = wanted or [g for g in groups if requested == str(_summary(g).number)]
    if len(wanted) == 1:
        return wanted[0]
    listed = " ".join(str(_summary(g)) for g in wanted or groups)
    if not wanted:
        problem = f"{source} has no series {series!r}; there are"
    elif series is not None:
        problem = f"{source} has {len(wanted)} series with the number {series}; give the UID of one of"
    else:
        problem = f"{source} holds {len(wanted)} series, but one is expected; pick one of"
    raise DicomSeriesError(f"{problem}: {listed} with --series UID or --series NUMBER")


def _read_array(ordered: list[DicomSlice]) -> NDArray[np.generic]:
    """Return the rescaled pixels, (D, H, W)."""
    rescales = {(s.slope, s.intercept) for s in ordered}
    if not all(np.isfinite(r).all() for r in rescales):
        raise DicomSeriesError("a slice has a rescale slope or intercept that is not finite; repair the series")
    # PET changes the slope from slice to slice; then only float holds all of them.
    one_rescale = len(rescales) == 1
    array: NDArray[np.generic] | None = None
    pixels: NDArray[np.generic] = np.empty((0, 0, 0))
    path = None
    for index, part in enumerate(ordered):
        if part.path != path:
            pixels, path = read_stored_pixels(part.path), part.path
        if part.frame >= len(pixels) or pixels.shape[1:] != part.shape_hw:
            raise DicomSeriesError(
                f"the pixels of {part.name} have shape {pixels.shape}, not the rows, columns and "
                "frames its header promises; export the series again"
            )
        plane = pixels[part.frame]
        if array is None:
            dtype = plane.dtype.newbyteorder("=") if one_rescale else np.dtype(np.float32)
            array = np.empty((len(ordered), *part.shape_hw), dtype=dtype)
        if one_rescale:
            array = _fitting(array, plane.dtype)
            array[index] = plane
        else:
            array[index] = plane.astype(np.float64) * part.slope + part.intercept
    if array is None or not one_rescale:
        return np.empty((0, 0, 0)) if array is None else array
    return scale_values(array, ordered[0].slope, ordered[0].intercept)


def _fitting(array: NDArray[np.generic], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Widen the array where a slice is stored in a dtype that its own cannot hold."""
    if np.can_cast(dtype, array.dtype, casting="safe"):
        return array
    return array.astype(np.promote_types(array.dtype, dtype))
