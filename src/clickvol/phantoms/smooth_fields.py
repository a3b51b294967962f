"""Smooth random fields in patient millimetres, the same whatever grid they are looked at on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid

_Array32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SmoothField:
    """A sum of plane waves with random directions, wavelengths and phases.

    The mean is about 0 and the variance 1. A plane wave on a regular grid is an outer product of
    three short vectors, so that a whole block of voxels is one matrix product.

    Attributes:
        wave_vectors_rad_per_mm: (M, 3), along RAS x, y, z.
        phases_rad: (M,).
    """

    wave_vectors_rad_per_mm: NDArray[np.float64]
    phases_rad: NDArray[np.float64]

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        wavelengths_mm: tuple[float, float],
        *,
        stretch_xyz: tuple[float, float, float] = (1.0, 1.0, 1.0),
        num_waves: int = 20,
    ) -> "SmoothField":
        """Draw a field between two wavelengths; its features are stretched along x, y and z."""
        directions = rng.normal(size=(num_waves, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        shortest, longest = np.log(wavelengths_mm).tolist()
        wavelengths = np.exp(rng.uniform(shortest, longest, size=(num_waves, 1)))
        vectors = directions * (2 * np.pi / wavelengths) / np.array(stretch_xyz)
        return cls(vectors, rng.uniform(0, 2 * np.pi, size=num_waves))

    def sample(self, grid: VolumeGrid, origin_ras_mm: NDArray[np.float64], rows: slice) -> _Array32:
        """Return the field on slices of a grid, (rows, H, W) float32; its zero lies at `origin_ras_mm`."""
        steps = grid.gradients_per_voxel(self.wave_vectors_rad_per_mm)
        first_ras_mm = grid.to_world(VoxelPoint(0, 0, 0)).as_array()
        start = self.wave_vectors_rad_per_mm @ (first_ras_mm - origin_ras_mm)
        _, num_h, num_w = grid.shape_dhw
        along_d = np.exp(
            1j * (np.outer(np.arange(rows.start, rows.stop), steps[:, 0]) + start + self.phases_rad)
        )
        along_h = np.exp(1j * np.outer(np.arange(num_h), steps[:, 1]))
        along_w = np.exp(1j * np.outer(steps[:, 2], np.arange(num_w)))
        scale = np.sqrt(2.0 / len(self.phases_rad))
        planes = (scale * along_d[:, None] * along_h[None]).reshape(-1, len(self.phases_rad))
        left = np.concatenate([planes.real, -planes.imag], axis=1).astype(np.float32)
        right = np.concatenate([along_w.real, along_w.imag]).astype(np.float32)
        return (left @ right).reshape(len(along_d), num_h, num_w)
