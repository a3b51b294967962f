"""Surfaces of masks: closed, seen from outside, as large as the object, where it is."""

import numpy as np
import pytest

from clickvol.errors import OutputError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Mask
from clickvol.previews.surface import surface_of, write_stl


def volume_mm3(corners, triangles):
    a, b, c = np.moveaxis(corners[triangles], 1, 0)
    return np.einsum("ni,ni->n", a, np.cross(b, c)).sum() / 6


def mask_of(array, affine=None):
    grid = VolumeGrid.axial(array.shape, (3.0, 2.0, 1.0)) if affine is None else affine(array.shape)
    return Mask(array.astype(np.uint8), grid)


def test_a_voxel_is_an_octahedron_around_its_centre():
    array = np.zeros((3, 3, 3))
    array[1, 1, 2] = 1
    mask = mask_of(array)
    corners, triangles = surface_of(mask, is_smooth=False)
    assert (len(corners), len(triangles)) == (6, 8)
    np.testing.assert_allclose(corners.mean(axis=0), mask.grid.world_positions(np.array([[1, 1, 2]]))[0])
    # Half of each diagonal is half a voxel: 4/3 of 1.5 * 1 * 0.5.
    assert volume_mm3(corners, triangles) == pytest.approx(1.0)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_every_surface_is_closed_and_seen_from_outside(is_mirrored):
    array = np.random.default_rng(2).random((7, 8, 9)) > 0.6  # every kind of neighbourhood
    grid = VolumeGrid.axial(array.shape, (1.0, 1.0, 1.0))
    if is_mirrored:
        grid = VolumeGrid.from_ijk(array.shape, np.diag([-1.0, 1, 1, 1]) @ grid.affine_ijk_ras_mm)
    corners, triangles = surface_of(Mask(array.astype(np.uint8), grid), is_smooth=False)
    edges = {}
    for triangle in triangles.tolist():
        for n in range(3):
            edge = triangle[n], triangle[(n + 1) % 3]
            edges[edge] = edges.get(edge, 0) + 1
    assert all(edges.get((b, a)) == count for (a, b), count in edges.items())
    assert volume_mm3(corners, triangles) > 0


def test_a_smooth_ball_keeps_its_size(tmp_path):
    d, h, w = np.mgrid[:24, :24, :24]
    ball = (d - 11.5) ** 2 + (h - 11.5) ** 2 + (w - 11.5) ** 2 <= 81
    mask = mask_of(ball)
    corners, triangles = surface_of(mask)
    assert volume_mm3(corners, triangles) == pytest.approx(ball.sum() * 6, rel=0.03)
    write_stl(mask, tmp_path / "ball.stl")
    content = (tmp_path / "ball.stl").read_bytes()
    assert content[:30].startswith(b"clickvol surface SPACE=RAS")
    assert int.from_bytes(content[80:84], "little") == len(triangles)
    assert len(content) == 84 + 50 * len(triangles)
    first = np.frombuffer(content, "<f4", count=12, offset=84).reshape(4, 3)
    np.testing.assert_allclose(first[1:], corners[triangles[0]], rtol=1e-6)


def test_nothing_has_no_surface():
    with pytest.raises(OutputError, match="no voxel"):
        surface_of(mask_of(np.zeros((3, 3, 3))))
