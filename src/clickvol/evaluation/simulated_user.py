"""A user who knows where the tumour is and clicks accordingly: the only code that shows anything of a label.

A model learns of the label what a click says, and nothing else. Every click comes with a line that says what
was looked at to place it.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.evaluation.box_prompt import BoxPrompt
from clickvol.evaluation.protocol import NextClick, Placement
from clickvol.evaluation.regions import (
    Region,
    Voxel,
    Voxels,
    beside_voxels,
    components,
    deepest_voxel,
    edge_voxels,
    inside_voxels,
)
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.click import Click


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is true of one scan; held by the user and the scorer, never by a model.

    Attributes:
        array: (D, H, W) uint8, 0 or 1.
        tumour: its voxels above 0.
        sha256: of the bytes of `array` in C order.
    """

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
    """A click, and what its place was chosen from.

    Attributes:
        click: position in voxels.
        voxel_ijk: the same, as the file is indexed.
        world_ras_mm: the same in the patient.
        drawn_from: in words.
        region_voxels: number of voxels that it was drawn from, or that the error has.
    """

    click: Click
    voxel_ijk: Voxel
    world_ras_mm: tuple[float, float, float]
    drawn_from: str
    region_voxels: int


class SimulatedUser:
    """One user at one scan. The same arguments and masks give the same clicks.

    Args:
        truth: of the scan.
        grid: of the scan.
        case_id: with the seed, begins the random numbers, whatever the model.
        seed: which user.
        placement: of the first click.
        next_clicks: how the others are placed.
    """

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
        self._taken: list[Voxel] = []
        self._box = BoxPrompt.around(truth.tumour) if placement == "box" else None

    @property
    def box(self) -> BoxPrompt | None:
        """The box that was given at the beginning, where the placement is one."""
        return self._box

    def first_click(self) -> PlacedClick:
        """Return the first click, always one on the foreground.

        Raises:
            ClickError: when it is to lie beside an object that fills the scan.
        """
        tumour, spacing = self._truth.tumour, self._grid.spacing_dhw_mm
        if self._placement == "random":
            return self._draw(tumour.voxels(tumour.inside), "any voxel of the tumour")
        if self._placement == "inside":
            return self._draw(inside_voxels(tumour, spacing), "tumour at half its depth or deeper")
        if self._placement == "edge":
            return self._draw(edge_voxels(tumour, spacing), "tumour within 2 mm of its surface")
        if self._placement == "outside":
            beside = beside_voxels(tumour, spacing, self._grid.shape_dhw)
            return self._draw(beside, "2 to 5 mm beside the tumour")
        if self._box is not None:
            position = self._box.click().position.as_array().astype(int)
            d, h, w = position.tolist()
            return self._place((d, h, w), "centre of the box", tumour.num_voxels)
        largest = components(tumour)[0]
        voxel = deepest_voxel(largest, spacing)
        if voxel is None:  # a region has a voxel, and none is taken yet
            raise _nowhere("in the largest part of the tumour")
        return self._place(voxel, "centre of the largest part of the tumour", largest.num_voxels)

    def next_click(self, mask: NDArray[np.uint8]) -> PlacedClick | None:
        """Return a further click, looking at the present mask.

        An earlier click counts as the border of an error: the next one is far from it, and never the same,
        also where the mask did not move.

        Args:
            mask: (D, H, W), 0 or 1, the answer to the clicks so far.

        Returns:
            The click; None where nothing is wrong any more, or every wrong voxel was clicked already.
        """
        if self._next_clicks == "random_foreground":
            tumour = self._truth.tumour
            return self._draw(tumour.voxels(tumour.inside), "any voxel of the tumour")
        for foreground, part in self._errors(mask):
            voxel = deepest_voxel(part, self._grid.spacing_dhw_mm, self._taken)
            if voxel is not None:
                what = "missed part" if foreground else "part beside the tumour"
                words = f"centre of the largest {what}"
                return self._place(voxel, words, part.num_voxels, foreground=foreground)
        return None

    def _errors(self, mask: NDArray[np.uint8]) -> Iterator[tuple[bool, Region]]:
        """Yield connected errors, the largest first; of equals the missed ones first."""
        found, true = mask > 0, self._truth.array > 0
        parts = []
        for foreground, wrong in ((True, true & ~found), (False, found & ~true)):
            region = Region.of(wrong)
            if region is not None:
                parts += [(foreground, part) for part in components(region)]
        yield from sorted(parts, key=lambda entry: -entry[1].num_voxels)

    def _draw(self, candidates: Voxels, drawn_from: str) -> PlacedClick:
        if len(candidates) == 0:
            raise _nowhere(drawn_from)
        d, h, w = candidates[self._rng.integers(len(candidates))].tolist()
        return self._place((d, h, w), drawn_from, len(candidates))

    def _place(
        self, voxel: Voxel, drawn_from: str, region_voxels: int, *, foreground: bool = True
    ) -> PlacedClick:
        self._taken.append(voxel)
        position = VoxelPoint.of(voxel)
        world = self._grid.to_world(position)
        return PlacedClick(
            click=Click(position, foreground),
            voxel_ijk=(voxel[2], voxel[1], voxel[0]),
            world_ras_mm=(world.x, world.y, world.z),
            drawn_from=drawn_from,
            region_voxels=region_voxels,
        )


def _nowhere(drawn_from: str) -> ClickError:
    msg = f"no voxel of this scan is {drawn_from!r}; choose another placement for it"
    return ClickError(msg)
