"""Segmentations made by hand."""

import numpy as np

from clickvol.geometry.box import VoxelBox
from clickvol.io.volume import Mask
from clickvol.predict.segmentation import Segmentation


def segmentation_of(mask, probability, start, grid):
    """Return an answer as `predict` gives it: a mask, and the probability (D, H, W) of a box from `start`."""
    box = VoxelBox.of(start, np.add(start, probability.shape))
    return Segmentation(
        mask=Mask(mask, grid),
        prompts=(),
        modality="CT",
        model_id="m",
        procedure="clickvol",
        fields_of_view=(),
        seconds={},
        prompts_used=(),
        warnings=(),
        probability_box=box,
        probability_in_box=probability,
    )
