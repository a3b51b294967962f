"""The organ mask that TAGS takes besides the scan: from a file, from a label, or not there at all.

A mask is 0 and 1 and never normalised. Torch-free.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.errors import ConfigError

OrganMaskSource = Literal["file", "gt", "none"]
"""`file`: one file per scan, made by a person or a program. `gt`: every labelled voxel, organ and tumour, as
in a variant of the released code; it gives the tumour's outline away where that is the organ's, so a score
made with it must say so. `none`: the scan stands in its place."""

NOTHING_BUT_THE_TUMOUR = (
    "the label has no voxel outside the tumour, so an organ mask made from it would be the answer; "
    'give tumour_label, or take the organ masks from "file" or "none"'
)
"""Why a label gives no organ mask."""

_Array32 = NDArray[np.float32]

# How far the stand-in for an organ reaches around a phantom's tumour. Chosen: wide enough that its outline
# is not the tumour's, and about as much larger than the tumour as a kidney is.
_STAND_IN_MARGIN_MM = 20.0


def organ_of_values(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return a mask file's content as 0 and 1: everything above 0 is organ; (D, H, W) -> (D, H, W)."""
    return (values.astype(np.float32) > 0).astype(np.uint8)


def organ_of_label(label: NDArray[np.generic], tumour: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the organ as a label (D, H, W) has it: every voxel with a label, those of the tumour (0 or 1) too.

    ConfigError when nothing but the tumour is labelled: such a mask would be the answer itself.
    """
    organ = organ_of_values(label) | tumour
    if np.array_equal(organ, tumour):
        raise ConfigError(NOTHING_BUT_THE_TUMOUR)
    return organ


def stand_in_organ(tumour: NDArray[np.uint8], spacing_dhw_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return what stands for an organ in a phantom: 20 mm around the tumour (D, H, W), not empty."""
    away_mm = ndimage.distance_transform_edt(tumour == 0, sampling=spacing_dhw_mm)
    return np.asarray(away_mm <= _STAND_IN_MARGIN_MM, dtype=np.uint8)


def with_organ_channel(scan: _Array32, organ: _Array32 | None) -> _Array32:
    """Put the channels of a patch together: (2, D, H, W) float32.

    The scan is normalised; above 0.5 the organ mask, after interpolation, is organ. None puts the scan there,
    as the released test code does without a mask.
    """
    second = scan if organ is None else (organ > 0.5).astype(np.float32)
    return np.stack([scan, second])
