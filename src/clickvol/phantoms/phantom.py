"""Synthetic CT-like and MR-like scans of a leg with a tumour whose true shape is known.

For the demo, the tests, the benchmarks, and as training data that never runs out. The tissues have
plausible values and shapes, but no anatomy is claimed: a score on a phantom says nothing about a
patient.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.errors import ConfigError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.geometry.patient_axes import PatientAxes
from clickvol.io.volume import Mask, Volume
from clickvol.phantoms.anatomy import Anatomy, draw_anatomy
from clickvol.phantoms.painting import TISSUES, Painter, PhantomModality

_Array32 = NDArray[np.float32]

# Voxels rendered at a time: about twenty temporary arrays of this size fit a CPU's cache.
_BLOCK_VOXELS = 200_000

# Not the origin, so that a lost offset or a wrong sign shows.
_VIEW_CENTRE = WorldPointRAS(38.0, -21.0, 310.0)


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A synthetic scan, int16; its tumour without what bone cuts off; a voxel deep inside it."""

    volume: Volume
    truth: Mask
    inside: VoxelPoint


def make_phantom(
    seed: int = 0,
    *,
    modality: PhantomModality = "CT",
    shape_dhw: tuple[int, int, int] = (60, 128, 128),
    spacing_dhw_mm: tuple[float, float, float] = (3.3, 1.5, 1.5),
    affine_ras_mm: NDArray[np.float64] | None = None,
    tumour_diameter_mm: float | None = None,
) -> Phantom:
    """Make a scan of a patient drawn from a seed; the same seed gives the same scan.

    The anatomy does not depend on the modality: the CT and the MR of one seed and one grid show the same
    patient.

    Args:
        seed: of the anatomy and of the noise.
        modality: "CT" in HU (air -1000, fat -105, muscle 54, tumour near 35, bone 1150), or "MR",
            T1-weighted (air 0, fat 1000, muscle 305, tumour near 280, cortical bone 25).
        shape_dhw: voxels per array axis.
        spacing_dhw_mm: used when no affine is given; the axes then run to superior, posterior and
            left, as in most axial scans.
        affine_ras_mm: (4, 4) from (d, h, w) voxels to RAS mm; any orientation.
        tumour_diameter_mm: about the longest extent; drawn from 20 to 150 when not given.

    Raises:
        BadGeometryError: when shape, spacing or affine make no grid.
        ConfigError: when the voxels are so large that none lies in the tumour.
    """
    grid = VolumeGrid.axial(shape_dhw, spacing_dhw_mm).centred_at(_VIEW_CENTRE)
    if affine_ras_mm is not None:
        grid = VolumeGrid(shape_dhw, affine_ras_mm)
    anatomy_rng, acquisition_rng = np.random.default_rng(seed).spawn(2)
    size = grid.extent_mm
    anatomy = draw_anatomy(
        anatomy_rng,
        view_xyz_mm=(float(size[0]), float(size[1]), float(size[2])),
        tumour_diameter_mm=tumour_diameter_mm,
    )
    return render_phantom(
        anatomy,
        grid,
        centre_ras_mm=grid.to_world(grid.box.middle).as_array(),
        modality=modality,
        rng=acquisition_rng,
    )


def render_phantom(
    anatomy: Anatomy,
    grid: VolumeGrid,
    *,
    centre_ras_mm: NDArray[np.float64],
    modality: PhantomModality,
    rng: np.random.Generator,
) -> Phantom:
    """Scan a synthetic patient with its zero at `centre_ras_mm`; two grids see the same one, other noise.

    ConfigError when no voxel lies in the tumour.
    """
    image = np.empty(grid.shape_dhw, dtype=np.int16)
    truth = np.empty(grid.shape_dhw, dtype=np.uint8)
    painter = Painter(anatomy, grid, np.asarray(centre_ras_mm, np.float64), TISSUES[modality])
    noise = float(rng.uniform(*TISSUES[modality].noise))
    inside: list[NDArray[np.int64]] = []
    depths: list[_Array32] = []
    num_d, num_h, num_w = grid.shape_dhw
    step = max(1, _BLOCK_VOXELS // (num_h * num_w))
    for start in range(0, num_d, step):
        rows = slice(start, min(start + step, num_d))
        values, tumour_distance = painter.paint(rows, modality)
        block = tumour_distance < 0
        truth[rows] = block
        inside.append(np.flatnonzero(block) + start * num_h * num_w)
        depths.append(-tumour_distance[block])
        image[rows] = _acquire(values, grid, noise, modality, rng)
    if not truth.any():
        raise ConfigError("no voxel of the phantom lies in its tumour; use smaller voxels or a larger tumour")
    depth = np.concatenate(depths)
    candidates = np.concatenate(inside)[depth >= 0.5 * depth.max()]
    d, h, w = np.unravel_index(int(rng.choice(candidates)), grid.shape_dhw)
    return Phantom(
        volume=Volume(image, grid, modality=modality, source="phantom"),
        truth=Mask(truth, grid),
        inside=VoxelPoint(float(d), float(h), float(w)),
    )


def _acquire(
    values: _Array32,
    grid: VolumeGrid,
    noise: float,
    modality: PhantomModality,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Add a scanner's noise to (rows, H, W) float32 intensities, and round."""
    if modality == "CT":
        noisy = values + noise * _ct_noise(values.shape, grid, rng)
        return np.asarray(np.clip(np.rint(noisy), -1024, 3071), dtype=np.int16)
    # The magnitude of a complex signal: Rician, so that the air is not below zero.
    real = values + noise * _blurred_noise(values.shape, grid, 0.6, rng)
    imaginary = noise * _blurred_noise(values.shape, grid, 0.6, rng)
    return np.asarray(np.rint(np.hypot(real, imaginary)), dtype=np.int16)


def _ct_noise(shape: tuple[int, ...], grid: VolumeGrid, rng: np.random.Generator) -> _Array32:
    """Grain of about a millimetre without slow parts, as filtered back projection leaves it."""
    fine = _blurred_noise(shape, grid, 0.7, rng)
    streaks = ndimage.uniform_filter1d(fine, 15, axis=PatientAxes.of(grid).array_axis[0], mode="wrap")
    return np.asarray(0.95 * fine + 0.8 * streaks, dtype=np.float32)


def _blurred_noise(
    shape: tuple[int, ...], grid: VolumeGrid, sigma_mm: float, rng: np.random.Generator
) -> _Array32:
    """Gaussian noise of variance 1, correlated over about sigma."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    for axis, spacing in enumerate(grid.spacing_dhw_mm):
        sigma = sigma_mm / spacing
        if sigma < 0.25:
            continue
        radius = int(np.ceil(2.5 * sigma))
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        kernel /= np.sqrt((kernel**2).sum())
        noise = ndimage.correlate1d(noise, kernel.astype(np.float32), axis=axis, mode="wrap")
    return noise
