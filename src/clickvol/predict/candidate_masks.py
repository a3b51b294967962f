"""Several masks for the same prompts, on the scan's grid, and how good each is expected to be."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.io.volume import Mask
from clickvol.patches.field_of_view import FieldOfView, paste, paste_box
from clickvol.predict.patch_predictor import PatchCandidate
from clickvol.predict.segmentation import THRESHOLD, Array32, CandidateMask, Segmentation, keep_clicked
from clickvol.weights.card import ModelCard


def with_candidates(
    segmentation: Segmentation,
    several: Sequence[PatchCandidate],
    field: FieldOfView,
    inside: Sequence[WorldPointRAS],
    card: ModelCard,
) -> Segmentation:
    """Add the candidates of a field of view and the expected Dice to a segmentation, whose mask is the first.

    Places inside the object choose the connected parts; knots of the model's card calibrate what the score head
    says. Without a head there are no candidates, and what the probability itself says is calibrated.
    """
    if not segmentation.mask.num_voxels or (not several and card.expected_dice is None):
        return segmentation
    if not several:
        kept = segmentation.mask.array[segmentation.probability_box.slices] > 0
        said = soft_dice(segmentation.probability_in_box, kept)
        return replace(segmentation, expected_dice=expected_dice(said, card))
    grid = segmentation.mask.grid
    masks = [segmentation.mask]
    for candidate in several[1:]:
        array = np.zeros(grid.shape_dhw, dtype=np.uint8)
        box = paste_box(candidate.probability, field.grid(), grid, THRESHOLD) or VoxelBox.whole((1, 1, 1))
        places = [grid.to_voxel(place).as_array() - np.array(box.start_dhw) for place in inside]
        pasted = paste(candidate.probability, field.grid(), grid, box) > THRESHOLD
        array[box.slices] = keep_clicked(pasted, places)
        masks.append(Mask(array, grid))
    expected = [expected_dice(candidate.predicted_dice, card) for candidate in several]
    return replace(
        segmentation,
        candidates=tuple(CandidateMask(m, dice) for m, dice in zip(masks, expected, strict=True)),
        expected_dice=None if card.expected_dice is None else expected[0],
    )


def expected_dice(predicted_dice: float, card: ModelCard) -> float:
    """Return the Dice measured where a model said this; what it said where nothing was measured."""
    if card.expected_dice is None:
        return predicted_dice
    said, measured = zip(*card.expected_dice, strict=True)
    return float(np.interp(predicted_dice, said, measured))


def soft_dice(probability: Array32, kept: NDArray[np.bool_]) -> float:
    """Return the Dice that a probability expects of its own mask, were every voxel drawn by it; 0 for no mask.

    Args:
        probability: (D, H, W) in [0, 1].
        kept: (D, H, W), the mask; other parts above the threshold are taken for objects that nobody means.
    """
    own = np.where((probability > THRESHOLD) & ~kept, 0, probability)
    total = float(own.sum(dtype=np.float64)) + float(kept.sum())
    return 2 * float(own[kept].sum(dtype=np.float64)) / total if kept.any() else 0.0
