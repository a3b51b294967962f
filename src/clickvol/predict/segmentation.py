"""What comes out of a segmentation, and how it came about."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.io.volume import Mask, Modality
from clickvol.patches.field_of_view import FieldOfView
from clickvol.prompts.click import Click


@dataclass(frozen=True, slots=True)
class FieldOfViewReport:
    """One look of the model at the patient.

    Attributes:
        voxel_mm: side of its voxels.
        centre_ras_mm: its middle.
        extent_dhw_mm: its side lengths along superior, anterior and right.
        reason: why it was taken, in words.
    """

    voxel_mm: float
    centre_ras_mm: tuple[float, float, float]
    extent_dhw_mm: tuple[float, float, float]
    reason: str

    @classmethod
    def of(cls, field: FieldOfView, reason: str) -> "FieldOfViewReport":
        """Describe a field of view."""
        centre = (field.centre.x, field.centre.y, field.centre.z)
        return cls(field.voxel_mm, centre, field.extent_mm, reason)


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The object that was clicked.

    Attributes:
        mask: on the grid of the scan.
        clicks: that it answers.
        modality: as which the scan was treated.
        model_id: which model.
        fields_of_view: every look, in order.
        seconds: time per stage: "prepare", "encode", "decode" and "paste".
        warnings: what a person should know, one sentence each.
        probability_box: part of the scan that probabilities were computed for.
        probability_in_box: (box shape) float32 in [0, 1]; 0 everywhere else.
    """

    mask: Mask
    clicks: tuple[Click, ...]
    modality: Modality
    model_id: str
    fields_of_view: tuple[FieldOfViewReport, ...]
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    probability_box: VoxelBox
    probability_in_box: NDArray[np.float32]

    def probability(self) -> NDArray[np.float32]:
        """Return the probability of the object in every voxel: (D, H, W) float32 in [0, 1]."""
        full = np.zeros(self.mask.grid.shape_dhw, dtype=np.float32)
        full[self.probability_box.slices] = self.probability_in_box
        return full

    def bounding_box(self) -> VoxelBox | None:
        """Return the smallest box around the mask; None for an empty mask."""
        inner = bounding_box(self.mask.array[self.probability_box.slices])
        if inner is None:
            return None
        d, h, w = self.probability_box.start_dhw
        (a, b, c), (e, f, g) = inner.start_dhw, inner.stop_dhw
        return VoxelBox((a + d, b + h, c + w), (e + d, f + h, g + w))
