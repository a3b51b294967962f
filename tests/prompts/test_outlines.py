"""Places by which prompts are drawn."""

import numpy as np
import pytest

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.click import Click
from clickvol.prompts.outlines import outline_of
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Scribble

GRID = VolumeGrid.axial((6, 10, 10), (3.0, 2.0, 2.0))


def voxels_of(prompt):
    return [tuple(GRID.to_voxel(place).as_array().round(6)) for place in outline_of(prompt, GRID)]


def drawn(*slices):
    mask = np.zeros(GRID.shape_dhw, dtype=bool)
    mask[slices] = True
    return PackedMask.of(mask)


def test_clicks_lines_and_boxes():
    assert voxels_of(Click(VoxelPoint(2, 3, 4))) == [(2, 3, 4)]
    assert voxels_of(Line(VoxelPoint(2, 3, 4), VoxelPoint(2, 8, 4))) == [(2, 3, 4), (2, 8, 4)]
    assert voxels_of(Box.of(VoxelBox.of((2, 3, 4), (3, 6, 8)))) == [(1.5, 2.5, 3.5), (2.5, 5.5, 7.5)]


def test_a_scribble_is_drawn_whole_and_a_lasso_by_its_border():
    assert voxels_of(Scribble(drawn(2, 3, slice(4, 7)))) == [(2, 3, 4), (2, 3, 5), (2, 3, 6)]
    area = drawn(2, slice(3, 8), slice(2, 7))
    places = set(voxels_of(Lasso(area)))
    assert len(places) == 16
    assert all(h in (3, 7) or w in (2, 6) for _, h, w in places)
    assert outline_of(GivenMask(area), GRID) == []


@pytest.mark.parametrize("length", [400, 5000])
def test_long_strokes_are_thinned(length):
    grid = VolumeGrid.axial((1, 5, 1000), (1.0, 1.0, 1.0))
    mask = np.zeros(grid.shape_dhw, dtype=bool)
    mask.reshape(-1)[:length] = True
    places = outline_of(Scribble(PackedMask.of(mask)), grid)
    assert len(places) == 400
    assert len(set(map(str, places))) == 400
