"""A picture of a segmentation: three planes through the click, as a radiologist hangs them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.geometry.patient_axes import PatientAxes
from clickvol.io.volume import Modality, Volume
from clickvol.preprocessing.intensity import CT_WINDOW_HU
from clickvol.previews.sheet import PANEL_PIXELS, MarkKind, PanelPicture, compose_sheet
from clickvol.prompts.click import Click
from clickvol.prompts.spatial import Box, Line, Prompt

_Array64 = NDArray[np.float64]

_MARGIN_MM = 30.0
_SMALLEST_VIEW_MM = 120.0
_REACH_MM = 5.0

_WINDOW_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, slots=True)
class _Plane:
    """How one plane is shown; axes are 0 x, 1 y, 2 z of the patient, RAS.

    Columns and rows of the picture run against their axis: left is the patient's right or
    anterior, up is anterior or superior.
    """

    name: str
    column_axis: int
    row_axis: int
    normal_axis: int
    letters: str  # left, right, top, bottom


_PLANES = (
    _Plane("Axial", 0, 1, 2, "RLAP"),
    _Plane("Coronal", 0, 2, 1, "RLSI"),
    _Plane("Sagittal", 1, 2, 0, "APSI"),
)


def draw_preview(
    volume: Volume,
    mask: NDArray[np.uint8],
    prompts: Sequence[Prompt],
    *,
    modality: Modality | None = None,
    caption: str = "",
    truth: NDArray[np.generic] | None = None,
    through: VoxelPoint | None = None,
) -> Image.Image:
    """Draw the axial, coronal and sagittal plane through the first foreground click.

    Without clicks, through the middle of the first line or box, else of the mask, else of the scan. Axial:
    anterior up; coronal and sagittal: superior up. The patient's right is on the left of the picture, and in
    the sagittal plane anterior is on the left. One millimetre is the same length in all directions and panels.
    For an oblique scan the planes are those of the scan that are nearest to the patient's.

    Args:
        volume: the scan.
        mask: (D, H, W), non-zero where the object is; drawn as an outline.
        prompts: a cross marks each click that lies within 5 mm of a plane, a rectangle each box that reaches
            so far, and a line each diameter with its middle there. Drawings and given masks are not shown.
        modality: chooses the grey values: CT -160 to 240 HU, else percentile 0.5 to 99.5 of what
            is in view. Taken from the volume when not given.
        caption: one line above the planes.
        truth: (D, H, W), non-zero where the object should be; drawn as a second outline.
        through: where the planes meet, instead of the first foreground click.

    Raises:
        ClickError: when a click is not in the scan.
    """
    axes = PatientAxes.of(volume.grid)
    marks = [mark for prompt in prompts for mark in _marks_of(prompt, volume.grid, axes)]
    planes_through = _first_inside(marks, axes.view(mask))
    if through is not None:
        planes_through = axes.index(through.as_array())
    outlined = mask if truth is None else (mask != 0) | (truth != 0)
    centre_mm, side_mm = _view_cube(axes.view(outlined), axes, planes_through)
    scan = axes.view(volume.array)
    window = _window(scan, axes, centre_mm, side_mm, modality or volume.modality)
    pictures = []
    for plane in _PLANES:
        panel = _Panel(plane, axes, centre_mm, side_mm)
        picture = panel.picture(scan, axes.view(mask), planes_through, window)
        if truth is not None:
            picture.truth = panel.inside(axes.view(truth), planes_through)
        for mark in marks:
            if mark.off_plane_mm(planes_through, axes, plane.normal_axis) <= _REACH_MM:
                ends = [panel.place(corner) for corner in mark.corners]
                picture.mark(mark.kind, ends, foreground=mark.foreground)
        pictures.append(picture.finish(plane.name, plane.letters, side_mm))
    return compose_sheet(pictures, caption, with_truth=truth is not None)


@dataclass(frozen=True, slots=True, eq=False)
class _Mark:
    """A drawn prompt: a click by one corner, a line by its ends, a box by two; indices of the view."""

    kind: MarkKind
    corners: _Array64
    foreground: bool

    def off_plane_mm(self, index: _Array64, axes: PatientAxes, axis: int) -> float:
        """Return how far it is from the plane through an index; a line is where its middle is."""
        along = self.corners[:, axis].mean(keepdims=True) if self.kind == "line" else self.corners[:, axis]
        beyond = max(along.min() - index[axis], index[axis] - along.max(), 0.0)
        return float(beyond * axes.spacing_mm[axis])


def _marks_of(prompt: Prompt, grid: VolumeGrid, axes: PatientAxes) -> list[_Mark]:
    """Return what is drawn of a prompt; nothing of a drawing or a given mask."""
    kind: MarkKind
    match prompt:
        case Click():
            kind, corners = "click", [grid.to_voxel(prompt.world(grid)).as_array()]
        case Line():
            kind, corners = "line", [grid.to_voxel(end).as_array() for end in prompt.ends(grid)]
        case Box():
            box = prompt.voxel_box(grid)
            kind, corners = "box", [np.array(box.start_dhw) - 0.5, np.array(box.stop_dhw) - 0.5]
        case _:
            return []
    return [_Mark(kind, np.stack([axes.index(corner) for corner in corners]), prompt.foreground)]


def _first_inside(marks: Sequence[_Mark], mask: NDArray[np.generic]) -> _Array64:
    """Return the first click inside, else the first mark, else the middle of the mask: an index (3,)."""
    clicks = [mark for mark in marks if mark.kind == "click"]
    best = next((mark for mark in clicks if mark.foreground), next(iter([*clicks, *marks]), None))
    return _middle(mask) if best is None else best.corners.mean(axis=0)


def _middle(mask: NDArray[np.generic]) -> _Array64:
    """Return the voxel in the middle of what is in a mask, or of an empty one, as an index (3,)."""
    box = bounding_box(mask) or VoxelBox.whole(mask.shape)
    return np.array([(a + b) // 2 for a, b in zip(box.start_dhw, box.stop_dhw, strict=True)], dtype=float)


def _view_cube(mask: NDArray[np.generic], axes: PatientAxes, click: _Array64) -> tuple[_Array64, float]:
    """Return the centre (3,) and the side of the cube to show, mm along the axes of the view."""
    low, high = click.copy(), click.copy()
    box = bounding_box(mask)
    if box is not None:
        low = np.minimum(low, box.start_dhw)
        high = np.maximum(high, np.array(box.stop_dhw) - 1)
    extent_mm = (high - low) * axes.spacing_mm
    side_mm = max(float(extent_mm.max()) + 2 * _MARGIN_MM, _SMALLEST_VIEW_MM)
    # A small scan is not shown as a stamp on a large sheet.
    side_mm = min(side_mm, float((axes.shape * axes.spacing_mm).max()))
    half = side_mm / 2
    last_mm = (axes.shape - 0.5) * axes.spacing_mm
    centre = (low + high) / 2 * axes.spacing_mm
    room = last_mm + 0.5 * axes.spacing_mm >= side_mm
    inside = np.clip(centre, half - 0.5 * axes.spacing_mm, np.maximum(last_mm - half, 0))
    return np.where(room, inside, (last_mm - 0.5 * axes.spacing_mm) / 2), side_mm


def _window(
    scan: NDArray[np.generic],
    axes: PatientAxes,
    centre_mm: _Array64,
    side_mm: float,
    modality: Modality,
) -> tuple[float, float]:
    """Return the values that are shown black and white."""
    if modality == "CT":
        return CT_WINDOW_HU
    first = np.floor((centre_mm - side_mm / 2) / axes.spacing_mm).astype(int)
    last = np.ceil((centre_mm + side_mm / 2) / axes.spacing_mm).astype(int)
    inside = scan[tuple(slice(max(a, 0), b + 1) for a, b in zip(first, last, strict=True))]
    # A thousandth of the voxels gives the percentiles as well as all of them do.
    step = max(1, round((inside.size / 200_000) ** (1 / 3)))
    low, high = np.percentile(inside[::step, ::step, ::step].astype(np.float32), _WINDOW_PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


class _Panel:
    """One plane of the view cube: where each pixel of its square picture lies."""

    def __init__(self, plane: _Plane, axes: PatientAxes, centre_mm: _Array64, side_mm: float) -> None:
        self._plane = plane
        self._axes = axes
        self._edge_mm = centre_mm + side_mm / 2  # where column 0 and row 0 begin
        self._mm_per_pixel = side_mm / PANEL_PIXELS

    def picture(
        self,
        scan: NDArray[np.generic],
        mask: NDArray[np.generic],
        index: _Array64,
        window: tuple[float, float],
    ) -> PanelPicture:
        """Look at the slice nearest to an index (3,) of the view; scan and mask are views."""
        columns = self._indices(self._plane.column_axis)
        rows = self._indices(self._plane.row_axis)
        low, high = window
        grey = np.clip((self._slice(scan, index, rows, columns) - low) / (high - low), 0, 1)
        return PanelPicture(
            grey=grey,
            inside=self.inside(mask, index),
            covered=self._in_scan(self._plane.row_axis, rows)[:, None]
            & self._in_scan(self._plane.column_axis, columns),
        )

    def inside(self, mask: NDArray[np.generic], index: _Array64) -> NDArray[np.bool_]:
        """Return which pixels of the slice nearest to an index (3,) are in a mask, a view."""
        columns, rows = self._indices(self._plane.column_axis), self._indices(self._plane.row_axis)
        return np.asarray(self._slice(mask, index, rows, columns, is_mask=True) > 0.5)

    def place(self, index: _Array64) -> tuple[float, float]:
        """Return the column and row, in pixels of the panel, of an index (3,) of the view."""
        pixels = (self._edge_mm - index * self._axes.spacing_mm) / self._mm_per_pixel
        return float(pixels[self._plane.column_axis]), float(pixels[self._plane.row_axis])

    def _indices(self, axis: int) -> _Array64:
        """Return the index along an axis of the view for each pixel, left to right, top down."""
        count = PanelPicture.SAMPLES
        from_edge = (np.arange(count) + 0.5) / count * PANEL_PIXELS * self._mm_per_pixel
        return np.asarray((self._edge_mm[axis] - from_edge) / self._axes.spacing_mm[axis])

    def _in_scan(self, axis: int, indices: _Array64) -> NDArray[np.bool_]:
        return np.asarray((indices >= -0.5) & (indices <= self._axes.shape[axis] - 0.5))

    def _slice(
        self,
        view: NDArray[np.generic],
        index: _Array64,
        rows: _Array64,
        columns: _Array64,
        *,
        is_mask: bool = False,
    ) -> NDArray[np.float32]:
        """Return the slice of a view through an index, interpolated at rows and columns; of a mask, 0 to 1."""
        normal = self._plane.normal_axis
        number = int(np.clip(np.rint(index[normal]), 0, self._axes.shape[normal] - 1))
        plane = np.take(view, number, axis=normal)
        plane = (plane != 0 if is_mask else plane).astype(np.float32)
        if self._plane.column_axis < self._plane.row_axis:
            plane = plane.T
        for axis, places in enumerate((rows, columns)):
            last = plane.shape[axis] - 1
            low, part = np.divmod(np.clip(places, 0, last), 1)
            near, far = (np.take(plane, np.minimum(low.astype(int) + step, last), axis) for step in (0, 1))
            plane = near + (far - near) * np.expand_dims(part.astype(np.float32), 1 - axis)
        return np.asarray(plane)
