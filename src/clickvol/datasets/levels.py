"""A scan at several resolutions along the patient's axes, so that patches of any voxel size take few voxels.

Axes are turned so that d runs to superior, h to anterior and w to the right as nearly as they can; blocks of
voxels are averaged as `patches.field_of_view.extract` does for coarser patches, so that nothing aliases and
training sees what prediction sees.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.grid import VolumeGrid
from clickvol.geometry.patient_axes import PatientAxes
from clickvol.patches.field_of_view import Triple, block_mean

LEVEL_VOXELS_MM = (0.0, 1.5, 2.2, 3.2, 4.5)
"""Patch voxel sides from which a scan is read at a coarser level: blocks of floor(side / spacing) voxels. About
half an octave apart, so that a patch is at most that much sharper than one of prediction."""

_SLAB_VOXELS = 64


def along_patient(array: NDArray[np.generic], grid: VolumeGrid) -> NDArray[np.generic]:
    """Return an array (D, H, W) with its axes along the patient's; a view, of a `StoredArray` too."""
    return PatientAxes.of(grid).view(array).transpose(2, 1, 0)


def patient_matrix(grid: VolumeGrid) -> NDArray[np.float64]:
    """Return the (3, 3) matrix from voxel steps of `along_patient` to the patient's (d, h, w) mm."""
    axes = PatientAxes.of(grid)
    # RAS is (right, anterior, superior), and so (w, h, d).
    to_patient = grid.world_steps(np.eye(3)).T[::-1, axes.array_axis[::-1]]
    return np.asarray(to_patient * np.where(axes.flipped, -1.0, 1.0)[::-1])


def level_blocks(spacing_dhw_mm: tuple[float, float, float]) -> tuple[Triple, ...]:
    """Return how many voxels one of each level stands for, along the patient; neighbours may be equal."""
    blocks = []
    for voxel_mm in LEVEL_VOXELS_MM:
        d, h, w = (max(1, int(voxel_mm / side + 1e-3)) for side in spacing_dhw_mm)
        blocks.append((d, h, w))
    return tuple(blocks)


def levels_along_patient(array: NDArray[np.generic], grid: VolumeGrid) -> dict[Triple, NDArray[np.generic]]:
    """Return the levels of a scan (D, H, W) of any axes that files hold."""
    spacing = spacing_along_patient(grid)
    return coarser_levels(along_patient(array, grid), spacing, kept_blocks(spacing))


def spacing_along_patient(grid: VolumeGrid) -> tuple[float, float, float]:
    """Return the voxel sides of `along_patient`, mm."""
    d, h, w = np.linalg.norm(patient_matrix(grid), axis=0).tolist()
    return (d, h, w)


def coarser_blocks(spacing_dhw_mm: tuple[float, float, float]) -> tuple[Triple, ...]:
    """Return the blocks of the levels that differ from the finest, each once."""
    return tuple(block for block in dict.fromkeys(level_blocks(spacing_dhw_mm)) if block != (1, 1, 1))


def kept_blocks(spacing_dhw_mm: tuple[float, float, float]) -> tuple[Triple, ...]:
    """Return the blocks of the levels that files hold: `coarser_blocks` but for those that `half_of` makes."""
    kept: list[Triple] = []
    for block in coarser_blocks(spacing_dhw_mm):
        if half_of(block, kept) is None:
            kept.append(block)
    return tuple(kept)


def half_of(block: Triple, kept: Iterable[Triple]) -> Triple | None:
    """Return which of some blocks is this one, or half of it wherever they differ; None for none."""
    return next((one for one in kept if all(b in (k, 2 * k) for b, k in zip(block, one, strict=True))), None)


def coarser_levels(
    array: NDArray[np.generic],
    spacing_dhw_mm: tuple[float, float, float],
    blocks: Iterable[Triple] | None = None,
) -> dict[Triple, NDArray[np.generic]]:
    """Return the levels of an array along the patient, all that differ from it or these; integers stay such."""
    levels: dict[Triple, NDArray[np.generic]] = {}
    for block in coarser_blocks(spacing_dhw_mm) if blocks is None else blocks:
        step = block[0] * max(1, _SLAB_VOXELS // block[0])
        slabs = [
            block_mean(np.asarray(array[first : first + step]), np.array(block))
            for first in range(0, array.shape[0], step)
        ]
        mean = np.concatenate(slabs)
        levels[block] = np.rint(mean).astype(array.dtype) if array.dtype.kind in "iu" else mean
    return levels
