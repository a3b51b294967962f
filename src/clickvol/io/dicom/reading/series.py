"""A folder or a zip of DICOM files to one volume: its series, its slices, and their pixels as one array."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.reading.gantry_tilt import (
    GantryTilt,
    rectangular_grid,
    resample_tilted,
    tilt_degrees,
)
from clickvol.io.dicom.reading.geometry import Stack, stack_slices
from clickvol.io.dicom.reading.headers import ImageFile, ImageSearch, checked_series, find_images
from clickvol.io.dicom.reading.pixels import read_stored_pixels
from clickvol.io.dicom.reading.search import opened_dicom
from clickvol.io.dicom.reading.slices import DicomSlice, slices_of
from clickvol.io.dicom.reading.volumes import choose_series_volume
from clickvol.io.dicom.sources import source_images_of
from clickvol.io.input_path import kind_of_path
from clickvol.io.volume import Modality, Volume
from clickvol.io.voxel_values import clean_values, scale_values


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSummary:
    """What one series of a folder is, to choose it by; of multi-frame files the frames are its slices."""

    uid: str
    number: int | None
    description: str
    modality: str
    num_slices: int

    def __str__(self) -> str:
        number = "without number" if self.number is None else f"number {self.number}"
        return f"[{number}: {self.description!r}, {self.modality}, {self.num_slices} slices, UID {self.uid}]"


def list_series(path: str | Path, *, limits: ReadLimits | None = None) -> list[SeriesSummary]:
    """Return the series of images in a folder or a zip, by number; UnreadableVolumeError without any."""
    path = Path(path)
    if kind_of_path(path) != "folder" and path.suffix.lower() != ".zip":
        raise UnreadableVolumeError(
            f"{path} is not a folder; give the folder or the .zip that holds the DICOM files"
        )
    with opened_dicom(path, limits) as folder:
        search = _searched(folder, str(path), limits)
        return [_summary(files) for files in sorted(search.by_series(), key=_order)]


def read_dicom(
    path: Path,
    *,
    series: str | None = None,
    volume_index: int | None = None,
    gantry_tilt: GantryTilt = "keep",
    resample_gaps: bool = False,
    limits: ReadLimits | None = None,
) -> Volume:
    """Read a series of classic slices or an enhanced multi-frame object; arguments and errors as `read_volume`.

    The scan is rescaled (Hounsfield units for CT). d grows along (row x column direction).
    """
    source = str(path)
    with opened_dicom(path, limits) as folder:
        search = _searched(folder, source, limits)
        files, series_notes = checked_series(_choose(source, search, series), source)
        slices = choose_series_volume([s for file in files for s in slices_of(file)], volume_index, source)
        stack = stack_slices(slices, resample_gaps=resample_gaps)
        grid = stack.grid
        tilt = _allowed_tilt(grid, gantry_tilt, source)
        if limits is not None:
            needed = rectangular_grid(grid, source) if tilt and gantry_tilt == "resample" else grid
            num_planes = max(len(stack.slices), needed.shape_dhw[0])
            limits.check_voxels(num_planes * math.prod(needed.shape_dhw[1:]), source)
        array, value_notes = clean_values(read_planes(stack), source)
        if stack.sources is None and not (tilt and gantry_tilt == "resample"):
            # For a mask as DICOM, which refers to these images.
            grid = replace(grid, file_facts=source_images_of(stack))
    outcome = "the grid is sheared accordingly"
    if tilt and gantry_tilt == "resample":
        array, grid = resample_tilted(array, grid, source)
        outcome = "the slices were resampled to a rectangular grid"
    tilt_notes = (f"The gantry was tilted by {tilt:.1f} degrees; {outcome}.",) if tilt else ()
    return Volume(
        array=array,
        grid=grid,
        modality=_modality(files),
        source=source,
        notes=(*search.notes, *series_notes, *stack.notes, *tilt_notes, *value_notes),
    )


def _modality(files: Sequence[ImageFile]) -> Modality:
    known: tuple[Modality, ...] = get_args(Modality)
    return next((m for m in known if m == files[0].text("Modality")), "unknown")


def _allowed_tilt(grid: VolumeGrid, gantry_tilt: GantryTilt, source: str) -> float:
    """Return the tilt in degrees, 0 for none; DicomSeriesError for a tilt where it is to be refused."""
    tilt = tilt_degrees(grid)
    if tilt and gantry_tilt == "refuse":
        raise DicomSeriesError(
            f"{source}: the gantry was tilted by {tilt:.1f} degrees, but slices straight above each other are "
            "expected; read the series with its tilt kept or resampled"
        )
    return tilt


def _searched(folder: Path, source: str, limits: ReadLimits | None) -> ImageSearch:
    search = find_images(folder, source=source, limits=limits)
    if not search.files:
        passed_over = " ".join(("", *search.notes))
        raise UnreadableVolumeError(
            f"{source} holds no DICOM images; give the folder or the .zip of a CT, MR or PET series, or a "
            f".nii.gz, .nrrd or .mha file{'.' if passed_over else ''}{passed_over}".removesuffix(".")
        )
    return search


def _order(files: list[ImageFile]) -> tuple[float, str]:
    summary = _summary(files)
    return (float("inf") if summary.number is None else summary.number, summary.uid)


def _summary(files: Sequence[ImageFile]) -> SeriesSummary:
    first = files[0]
    return SeriesSummary(
        uid=first.series_uid,
        number=first.series_number,
        description=first.text("SeriesDescription"),
        modality=first.text("Modality") or "unknown",
        num_slices=sum(file.num_frames for file in files),
    )


def _choose(source: str, search: ImageSearch, series: str | None) -> list[ImageFile]:
    wanted = search.by_series(series)
    if len(wanted) == 1:
        return wanted[0]
    listed = " ".join(str(_summary(g)) for g in sorted(wanted or search.by_series(), key=_order))
    if not wanted:
        problem = f"{source} has no series {series!r}; there are"
    elif series is not None:
        problem = f"{source} has {len(wanted)} series with the number {series}; give the UID of one of"
    else:
        problem = f"{source} holds {len(wanted)} series, but one is expected; pick one of"
    raise DicomSeriesError(f"{problem}: {listed} with --series UID or --series NUMBER")


def read_planes(stack: Stack) -> NDArray[np.generic]:
    """Return the rescaled pixels of a stack, (D, H, W); planes between two slices by linear interpolation.

    DicomSeriesError for pixels that are missing, damaged or not of the size that their header says.
    """
    array = _read_array(stack.slices)
    if stack.sources is None:
        return array
    planes = np.empty((len(stack.sources), *array.shape[1:]), array.dtype)
    for plane, source in zip(planes, stack.sources, strict=True):
        below = min(int(source), len(array) - 1)
        above, weight = min(below + 1, len(array) - 1), source - int(source)
        values = array[below].astype(np.float64) * (1 - weight) + array[above].astype(np.float64) * weight
        plane[...] = np.rint(values) if array.dtype.kind in "iu" else values
    return planes


def _read_array(ordered: list[DicomSlice]) -> NDArray[np.generic]:
    rescales = {(s.slope, s.intercept) for s in ordered}
    # PET changes the slope from slice to slice; then only float holds all of them.
    one_rescale = len(rescales) == 1
    array: NDArray[np.generic] | None = None
    pixels: NDArray[np.generic] = np.empty((0, 0, 0))
    path = None
    # File by file, so that one with many frames is decoded once.
    for index in sorted(range(len(ordered)), key=lambda i: ordered[i].path):
        part = ordered[index]
        if part.path != path:
            pixels, path = read_stored_pixels(part.path, part.file.header), part.path
            if part.mosaic is not None and pixels.shape[1:] == part.mosaic.picture_shape_hw:
                pixels = part.mosaic.tiles(pixels[0])
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
