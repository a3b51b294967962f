"""A user who knows where the tumour is and clicks accordingly: the only code that shows anything of a label.

A method learns of the label what a click says, and nothing else. Every click comes with a line that says what
of the label it was placed by. Where clicks lie is defined in `prompts.simulate`.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.evaluation.protocol import NextClick, Placement
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.click import Click
from clickvol.prompts.simulate import (
    Region,
    Voxel,
    Voxels,
    components,
    deepest_voxel,
    edge_voxels,
    inside_voxels,
    largest_error_click,
    outside_voxels,
)

# The box is drawn on one slice, so that the object may be wider on others. Chosen: a quarter of each side.
_MARGIN_SHARE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is true of one scan, (D, H, W) uint8, 0 or 1; held by the user and the scorer, never by a model."""

    array: NDArray[np.uint8]
    tumour: Region
    sha256: str

    @classmethod
    def of(cls, label: NDArray[np.generic]) -> "Truth | None":
        """Take a label (D, H, W), the object where it is not 0; None for an empty one."""
        array = np.ascontiguousarray(label != 0, dtype=np.uint8)
        tumour = Region.of(array > 0)
        if tumour is None:
            return None
        return cls(array, tumour, hashlib.sha256(array.data).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedClick:
    """A click, and what its place was chosen from, or what the error has, in words and voxels."""

    click: Click
    voxel_ijk: Voxel
    world_ras_mm: tuple[float, float, float]
    drawn_from: str
    region_voxels: int


@dataclass(frozen=True, slots=True)
class BoxPrompt:
    """The box of the CVPR 2025 interactive challenge: drawn on the middle slice, with the first and last slice.

    Attributes:
        box: half-open, in voxels; d from the first to the last slice with the object, h and w around the
            object on the middle slice.
        middle_d: the slice that it was drawn on: the median of the slices with the object.
    """

    box: VoxelBox
    middle_d: int

    @classmethod
    def around(cls, tumour: Region) -> "BoxPrompt":
        """Draw the box around an object."""
        occupied = np.flatnonzero(tumour.inside.any(axis=(1, 2)))
        middle = int(occupied[len(occupied) // 2])
        rows = np.flatnonzero(tumour.inside[middle].any(axis=1))
        columns = np.flatnonzero(tumour.inside[middle].any(axis=0))
        d, h, w = tumour.start_dhw
        start = (d + int(occupied[0]), h + int(rows[0]), w + int(columns[0]))
        stop = (d + int(occupied[-1]) + 1, h + int(rows[-1]) + 1, w + int(columns[-1]) + 1)
        return cls(VoxelBox(start, stop), d + middle)

    def click(self) -> Click:
        """Return the click at its centre: the middle slice, and the middle of the box there."""
        (_, h, w), (_, i, x) = self.box.start_dhw, self.box.stop_dhw
        return Click(VoxelPoint(float(self.middle_d), float((h + i - 1) // 2), float((w + x - 1) // 2)))

    def cut(self, mask: NDArray[np.uint8], clicks: Sequence[Click]) -> NDArray[np.uint8]:
        """Return the mask (D, H, W) without what lies beyond the box and its margin.

        The margin is a quarter of each side, at least one voxel, but none along d, where the box has the
        object's whole extent. Foreground clicks beyond widen the bound, each with the same margin, so that a
        user can correct what the box left out. ClickError for clicks that are not in voxels.
        """
        start, stop = np.array(self.box.start_dhw), np.array(self.box.stop_dhw)
        margin = np.maximum(np.ceil(_MARGIN_SHARE * (stop - start)).astype(int), 1)
        margin[0] = 0
        for click in clicks:
            if not isinstance(click.position, VoxelPoint):
                raise ClickError(
                    "a box is cut with clicks in voxels, but one is in millimetres; convert it first"
                )
            if click.foreground:
                voxel = np.rint(click.position.as_array()).astype(int)
                start, stop = np.minimum(start, voxel), np.maximum(stop, voxel + 1)
        low = np.maximum(start - margin, 0)
        inner = tuple(slice(int(a), int(b)) for a, b in zip(low, stop + margin, strict=True))
        kept = np.zeros_like(mask)
        kept[inner] = mask[inner]
        return kept


class SimulatedUser:
    """One user at one scan. The same arguments and masks give the same clicks, whatever the model."""

    def __init__(
        self,
        truth: Truth,
        grid: VolumeGrid,
        *,
        case_id: str,
        seed: int,
        placement: Placement,
        next_clicks: NextClick,
    ) -> None:
        self._truth = truth
        self._grid = grid
        self._placement: Placement = placement
        self._next_clicks: NextClick = next_clicks
        # A hash that is the same in every process, unlike Python's own.
        self._rng = np.random.default_rng([seed, zlib.crc32(case_id.encode("utf-8"))])
        self._earlier: list[Voxel] = []
        self._box = BoxPrompt.around(truth.tumour) if placement == "box" else None

    @property
    def box(self) -> BoxPrompt | None:
        """The box that was given at the beginning, where the placement is one."""
        return self._box

    def first_click(self) -> PlacedClick:
        """Return a click on the foreground; ClickError when it is to lie beside what fills the scan."""
        tumour, spacing = self._truth.tumour, self._grid.spacing_dhw_mm
        if self._placement in ("random", "points"):
            return self._draw(tumour.voxels(tumour.inside), "any voxel of the tumour")
        if self._placement == "inside":
            return self._draw(inside_voxels(tumour, spacing), "tumour at half its depth or deeper")
        if self._placement == "edge":
            return self._draw(edge_voxels(tumour, spacing), "tumour within 2 mm of its surface")
        if self._placement == "outside":
            outside = outside_voxels(tumour, spacing, self._grid.shape_dhw)
            return self._draw(outside, "2 to 5 mm beside the tumour")
        if self._box is not None:
            position = self._box.click().position.as_array().astype(int)
            d, h, w = position.tolist()
            return self._place((d, h, w), "centre of the box", tumour.num_voxels)
        largest = components(tumour)[0]
        voxel = deepest_voxel(largest, spacing)
        if voxel is None:  # a region has a voxel, and none was clicked yet
            raise _no_voxel("in the largest part of the tumour")
        return self._place(voxel, "centre of the largest part of the tumour", largest.num_voxels)

    def next_click(self, mask: NDArray[np.uint8]) -> PlacedClick | None:
        """Return a further click, looking at the present mask (D, H, W), the answer to the clicks so far.

        An earlier click counts as the border of an error: the next one is far from it, and never the same, also
        where the mask did not move. None where nothing is wrong any more, or every wrong voxel was clicked
        already.
        """
        if self._placement == "points":
            return self._further_point()
        if self._next_clicks == "random_foreground":
            tumour = self._truth.tumour
            return self._draw(tumour.voxels(tumour.inside), "any voxel of the tumour")
        truth, spacing = self._truth.array > 0, self._grid.spacing_dhw_mm
        click = largest_error_click(mask > 0, truth, spacing, self._earlier)
        if click is None:
            return None
        what = "missed part" if click.foreground else "part beside the tumour"
        words = f"centre of the largest {what}"
        return self._place(click.voxel_dhw, words, click.region_voxels, foreground=click.foreground)

    def _further_point(self) -> PlacedClick:
        """Draw a point so that of the first N, from two on, N / 2 rounded down lie in the object."""
        number, tumour = len(self._earlier) + 1, self._truth.tumour
        outside = np.flatnonzero(self._truth.array == 0)
        if len(outside) == 0 or (number > 2 and number % 2 == 0):
            return self._draw(tumour.voxels(tumour.inside), "any pixel of the object")
        place = outside[self._rng.integers(len(outside))]
        d, h, w = (int(index) for index in np.unravel_index(place, self._truth.array.shape))
        return self._place((d, h, w), "any pixel outside the object", len(outside), foreground=False)

    def _draw(self, candidates: Voxels, drawn_from: str) -> PlacedClick:
        if len(candidates) == 0:
            raise _no_voxel(drawn_from)
        d, h, w = candidates[self._rng.integers(len(candidates))].tolist()
        return self._place((d, h, w), drawn_from, len(candidates))

    def _place(
        self, voxel: Voxel, drawn_from: str, region_voxels: int, *, foreground: bool = True
    ) -> PlacedClick:
        self._earlier.append(voxel)
        position = VoxelPoint.of(voxel)
        world = self._grid.to_world(position)
        return PlacedClick(
            click=Click(position, foreground),
            voxel_ijk=(voxel[2], voxel[1], voxel[0]),
            world_ras_mm=(world.x, world.y, world.z),
            drawn_from=drawn_from,
            region_voxels=region_voxels,
        )


def _no_voxel(drawn_from: str) -> ClickError:
    return ClickError(f"no voxel of this scan is {drawn_from!r}; choose another placement for it")
