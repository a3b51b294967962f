"""Augmentations: random changes of a patch, its grid and its values, as pure functions of a generator."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid

_Array32 = NDArray[np.float32]
Triple = tuple[int, int, int]


def turned(
    grid: VolumeGrid,
    pivot: WorldPointRAS,
    rotation_degrees: float,
    stretch: float,
    rng: np.random.Generator,
) -> VolumeGrid:
    """Rotate, stretch and mirror a patch grid about a place of the patient.

    Args:
        grid: of the patch.
        pivot: stays where it is.
        rotation_degrees: largest rotation about each axis.
        stretch: largest relative change of scale per axis.
        rng: source of the randomness.
    """
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * rotation_degrees)
    change = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        change = change @ turn
    change = change @ np.diag(np.exp(rng.uniform(-1, 1, 3) * stretch) * rng.choice([-1.0, 1.0], 3))
    return grid.transformed_about(pivot, change)


def smooth_noise(channels: int, shape: Triple, cells: int, rng: np.random.Generator) -> _Array32:
    """Return (channels, *shape) of standard normal noise on `cells`^3 nodes, trilinear between."""
    nodes = torch.from_numpy(rng.standard_normal((1, channels, cells, cells, cells), np.float32))
    field = F.interpolate(nodes, size=shape, mode="trilinear", align_corners=True)
    return np.asarray(field[0].numpy(), dtype=np.float32)


def displacement(shape: Triple, sigma_voxels: float, rng: np.random.Generator) -> _Array32 | None:
    """Return a smooth displacement of the sampling places, (3, D, H, W) patch voxels; None in 3 of 10 draws."""
    if sigma_voxels == 0 or rng.random() < 0.3:
        return None
    return smooth_noise(3, shape, 5, rng) * np.float32(sigma_voxels)


def bend_at(bend: _Array32 | None, place: VoxelPoint) -> NDArray[np.float64]:
    """Return the displacement next to a patch place, to first order the way back."""
    if bend is None:
        return np.zeros(3)
    index = np.clip(np.rint(place.as_array()), 0, np.array(bend.shape[1:]) - 1).astype(int)
    return bend[:, index[0], index[1], index[2]].astype(np.float64)


def spoil_intensity(patch: _Array32, rng: np.random.Generator) -> _Array32:
    """Change contrast, brightness, sharpness and noise of a normalised patch."""
    patch = patch * np.float32(rng.uniform(0.8, 1.25)) + np.float32(rng.uniform(-0.2, 0.2))
    if rng.random() < 0.3:
        # Gamma on the range of the patch.
        low, span = patch.min(), np.ptp(patch) + 1e-6
        patch = low + span * ((patch - low) / span) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.3:
        patch = patch + smooth_noise(1, shape_of(patch), 3, rng)[0] * np.float32(0.2)
    if rng.random() < 0.2:
        blurred = F.avg_pool3d(
            torch.from_numpy(patch)[None, None], 3, stride=1, padding=1, count_include_pad=False
        )[0, 0]
        patch = blurred.numpy()
    if rng.random() < 0.5:
        noise = rng.standard_normal(patch.shape, np.float32)
        patch = patch + noise * np.float32(rng.uniform(0, 0.15))
    return np.ascontiguousarray(patch, dtype=np.float32)


def shape_of(array: NDArray[np.generic]) -> Triple:
    """Return (D, H, W)."""
    d, h, w = array.shape
    return (d, h, w)
