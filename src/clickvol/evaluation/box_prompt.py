"""A box as a prompt for models that take clicks: a click at its centre, and a bound for the mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.evaluation.regions import Region
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.prompts.click import Click

# The box is drawn on one slice, so that the object may be wider on others. Chosen: a quarter of each side.
_MARGIN_SHARE = 0.25


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
        """Return the mask without what lies beyond the box and its margin.

        The margin is a quarter of each side, at least one voxel, but none along d, where the box has the
        object's whole extent. Foreground clicks beyond widen the bound, each with the same margin, so that
        a user can correct what the box left out.

        Args:
            mask: (D, H, W), 0 or 1.
            clicks: so far, in voxels.

        Raises:
            ClickError: for clicks that are not in voxels.
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
