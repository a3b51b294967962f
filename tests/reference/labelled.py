"""A labelled scan made by hand."""

import numpy as np

from clickvol.datasets.samples import LabelledVolume
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume


def block_case(
    *,
    image_of_label=lambda label: label * 1000.0,
    modality="MR",
    first=(12, 22, 20),
    last=(20, 32, 34),
):
    """A box off the middle of a scan of 120 mm with oblique, unequal voxels; 24 x 20 x 28 mm if not said."""
    label = np.zeros((40, 60, 60), dtype=np.uint8)
    label[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = 1
    turn = np.array([[0, 0.6, -0.8], [0, -0.8, -0.6], [1, 0, 0]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [3.0, 2.0, 2.0]
    affine[:3, 3] = (15, -40, 200)
    array = np.asarray(image_of_label(label), dtype=np.float32)
    return LabelledVolume.of(Volume(array, VolumeGrid(label.shape, affine), modality), label)
