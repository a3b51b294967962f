"""Several masks for the same prompts, on the scan's grid, and how good each is expected to be."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Modality
from clickvol.patches.field_of_view import FieldOfView, paste, paste_box
from clickvol.predict.segmentation import THRESHOLD, Array32, CandidateMask, Segmentation, keep_clicked
from clickvol.prompts.packed_mask import PackedMask
from clickvol.weights.card import ModelCard
from clickvol.weights.expected_dice import DiceEstimate


def with_candidates(
    segmentation: Segmentation,
    several: Sequence[tuple[Array32, float]],
    field: FieldOfView,
    inside: Sequence[WorldPointRAS],
    card: ModelCard,
) -> Segmentation:
    """Add the candidates of a field of view and the expected Dice to a segmentation, whose mask is the first.

    Each is a probability (D, H, W) and what the score head says of its Dice, in (0, 1), which the model's card
    calibrates. Places inside the object choose the connected parts. Without a head there are no candidates, and
    what the probability itself says is calibrated.
    """
    grid, modality = segmentation.mask.grid, segmentation.modality
    kept = segmentation.mask.array[segmentation.probability_box.slices] > 0
    if not kept.any() or (not several and card.expected_dice is None):
        return segmentation
    said = several[0][1] if several else soft_dice(segmentation.probability_in_box, kept)
    expected = expected_dice(said, kept, grid, modality, card)
    packed = PackedMask.of(kept).shift(segmentation.probability_box.start_dhw)
    masks = [CandidateMask(packed, grid, expected.dice)] if several else []
    for probability, said in several[1:]:
        box = paste_box(probability, field.grid(), grid, THRESHOLD) or VoxelBox.whole((1, 1, 1))
        places = [grid.to_voxel(place).as_array() - np.array(box.start_dhw) for place in inside]
        kept = keep_clicked(paste(probability, field.grid(), grid, box) > THRESHOLD, places)
        own = expected_dice(said, kept, grid, modality, card)
        masks.append(CandidateMask(PackedMask.of(kept).shift(box.start_dhw), grid, own.dice))
    return replace(
        segmentation, candidates=tuple(masks), expected=None if card.expected_dice is None else expected
    )


def expected_dice(
    said: float, kept: NDArray[np.bool_], grid: VolumeGrid, modality: Modality, card: ModelCard
) -> DiceEstimate:
    """Return the Dice measured where a model said this of such a mask; what it said where nothing was measured.

    `kept` (D, H, W) is the mask, or a part of the scan with all of it; the grid is that of the scan.
    """
    box = bounding_box(kept)
    if card.expected_dice is None or box is None:
        return DiceEstimate(said)
    return card.expected_dice.of(said, modality, float((grid.spacing_dhw_mm * box.shape_dhw).max()))


def soft_dice(probability: Array32, kept: NDArray[np.bool_]) -> float:
    """Return the Dice that a probability expects of its own mask, were every voxel drawn by it; 0 for no mask.

    Args:
        probability: (D, H, W) in [0, 1].
        kept: (D, H, W), the mask; other parts above the threshold are taken for objects that nobody means.
    """
    own = np.where((probability > THRESHOLD) & ~kept, 0, probability)
    total = float(own.sum(dtype=np.float64)) + float(kept.sum())
    return 2 * float(own[kept].sum(dtype=np.float64)) / total if kept.any() else 0.0
