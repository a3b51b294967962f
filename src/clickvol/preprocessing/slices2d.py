"""A slice of a scan as a 2D image: which, which way up, and its values as 2D networks take them. Torch-free."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ConfigError
from clickvol.geometry.grid import VolumeGrid
from clickvol.geometry.patient_axes import PatientAxes
from clickvol.io.volume import Modality
from clickvol.preprocessing.intensity import CT_WINDOW_HU

Plane = Literal["axial", "coronal", "sagittal"]
FileAxis = Literal["i", "j", "k"]
SliceAxis = Plane | FileAxis

_PLANES: tuple[Plane, ...] = get_args(Plane)
_FILE_AXES: tuple[FileAxis, ...] = get_args(FileAxis)

# Axes of the patient (0 x, 1 y, 2 z) that the slices follow, and that rows and columns run against.
_NORMAL_ROW_COLUMN = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}

# What LiteMedSAM was trained with for anything but CT; the window of CT is the package's own.
_WINDOW_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, slots=True)
class SliceView:
    """Where a slice lies in an array (D, H, W), and how it lies in its image (rows, columns).

    It lies across `normal_axis`, at `index` as stored, from 0; rows and columns are counted along array axes,
    and where they are flipped from the axis' end.
    """

    shape_dhw: tuple[int, int, int]
    normal_axis: int
    index: int
    row_axis: int
    column_axis: int
    row_flipped: bool
    column_flipped: bool

    def cut(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the slice of an array (D, H, W) as (H', W'), no copy; ConfigError for other shapes."""
        if array.shape != self.shape_dhw:
            raise ConfigError(
                f"the array has shape {array.shape}, but the slice lies in one of {self.shape_dhw}"
            )
        # The slice first: of an array in a file no more is read then.
        across = tuple(self.index if axis == self.normal_axis else slice(None) for axis in range(3))
        plane = np.asarray(array[across])
        plane = plane.T if self.row_axis > 3 - self.normal_axis - self.row_axis else plane
        rows = slice(None, None, -1 if self.row_flipped else 1)
        columns = slice(None, None, -1 if self.column_flipped else 1)
        return np.asarray(plane[rows, columns])

    def filled(self, plane: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return an array (D, H, W) with a mask (H', W') in the slice as 1, and 0 elsewhere."""
        array = np.zeros(self.shape_dhw, dtype=np.uint8)
        self.cut(array)[...] = plane
        return array

    def voxel_ijk(self, column: float, row: float) -> tuple[float, float, float]:
        """Return the voxel position of the file (i, j, k) of a pixel position."""
        position = [0.0, 0.0, 0.0]
        position[self.normal_axis] = float(self.index)
        for axis, flipped, pixel in (
            (self.row_axis, self.row_flipped, row),
            (self.column_axis, self.column_flipped, column),
        ):
            position[axis] = self.shape_dhw[axis] - 1 - pixel if flipped else pixel
        d, h, w = position
        return w, h, d


def slice_view(grid: VolumeGrid, axis: SliceAxis, index: int) -> SliceView:
    """Choose a slice and lay it down as an image.

    "axial", "coronal" and "sagittal" are the slices of the scan that are nearest to the patient's planes, hung
    as radiologists do: the patient's right (axial, coronal) or front (sagittal) on the left of the image, and
    the front (axial) or the head (coronal, sagittal) at its top. "i", "j" and "k" are the slices across an axis
    of the file, as stored: of the two other axes the earlier letter counts the columns and the later one the
    rows, so pixels are voxel indices. The index is along that axis of the file, from 0, as viewers count
    voxels. ConfigError for another axis, or a slice that the scan does not have.
    """
    if axis in _PLANES:
        axes = PatientAxes.of(grid)
        normal, row, column = _NORMAL_ROW_COLUMN[axis]
        view = SliceView(
            shape_dhw=grid.shape_dhw,
            normal_axis=axes.array_axis[normal],
            index=index,
            row_axis=axes.array_axis[row],
            column_axis=axes.array_axis[column],
            # Rows and columns run to posterior, inferior and left: against the axes of the patient.
            row_flipped=not axes.flipped[row],
            column_flipped=not axes.flipped[column],
        )
    elif axis in _FILE_AXES:
        # Array axes are the file's in reverse.
        row, column = (a for a in range(3) if a != 2 - _FILE_AXES.index(axis))
        view = SliceView(
            shape_dhw=grid.shape_dhw,
            normal_axis=2 - _FILE_AXES.index(axis),
            index=index,
            row_axis=row,
            column_axis=column,
            row_flipped=False,
            column_flipped=False,
        )
    else:
        raise ConfigError(
            f"there is no slice axis {axis!r}; choose one of {', '.join((*_PLANES, *_FILE_AXES))}"
        )
    last = grid.shape_dhw[view.normal_axis] - 1
    if not 0 <= index <= last:
        raise ConfigError(f"the scan has no {axis} slice {index}; its {axis} slices are 0 to {last}")
    return view


def unit_pixels(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Bring the pixels of a picture to 0..1: deep grey by `unit_values`, 8 bits by 255."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    return unit_values(pixels, None)


def unit_values(values: NDArray[np.generic], modality: Modality | None) -> NDArray[np.float32]:
    """Window values (H, W) to 0..1 float32; 0 everywhere where all are equal and no window is fixed.

    "CT" takes the soft-tissue window; anything else, and None (a picture), the percentiles 0.5 and 99.5 of
    these values.
    """
    real = values.astype(np.float32)
    low, high = CT_WINDOW_HU if modality == "CT" else np.percentile(real, _WINDOW_PERCENTILES)
    if high <= low:
        return np.zeros_like(real)
    scaled = np.clip((real - low) / (high - low), 0, 1)
    return np.asarray(scaled, dtype=np.float32)
