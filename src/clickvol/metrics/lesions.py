"""How many of the lesions in a truth a mask overlaps."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.box import bounding_box


def lesion_recall(
    prediction: NDArray[np.generic], truth: NDArray[np.generic], *, smallest_voxels: int = 1
) -> float | None:
    """Return the share of the lesions in the truth that the prediction hits.

    A lesion is a component of the truth whose voxels touch by a face, an edge or a corner. It is hit
    where at least one of its voxels is predicted. Lesions in the prediction alone do not count.

    Args:
        prediction: (D, H, W); a voxel belongs to the object where it is not zero.
        truth: the same shape.
        smallest_voxels: components with fewer voxels are left out. 1 counts all, so that nothing is
            left out unsaid (chosen).

    Returns:
        0 to 1; None where the truth has no lesion that counts.

    Raises:
        ValueError: when the shapes differ or are not of three axes.
    """
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise ValueError(
            f"the masks have shapes {prediction.shape} and {truth.shape}, which must be equal and of three axes"
        )
    box = bounding_box(truth)
    if box is None:
        return None
    components, number = ndimage.label(truth[box.slices] != 0, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel(), minlength=number + 1)[1:]
    overlapped = components[(prediction[box.slices] != 0) & (components > 0)]
    hits = np.bincount(overlapped, minlength=number + 1)[1:]
    counted = sizes >= smallest_voxels
    if not counted.any():
        return None
    return float((hits[counted] > 0).mean())
