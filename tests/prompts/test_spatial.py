"""Prompts beside clicks: which voxels they mean, and what is refused."""

import numpy as np
import pytest

from clickvol.errors import ClickError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import EMPTY, PackedMask
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Scribble, check_any_prompt_inside

GRID = VolumeGrid.axial((6, 10, 12), (3.0, 1.0, 1.0))


def voxels_of(drawing):
    return np.argwhere(drawing.voxels.full(GRID.shape_dhw)).tolist()


def test_a_box_holds_both_corners_in_any_order_and_in_millimetres():
    expected = VoxelBox.of((1, 2, 3), (3, 5, 9))
    first, second = VoxelPoint(2, 2, 8), VoxelPoint(1, 4, 3)
    assert Box(first, second).voxel_box(GRID) == expected
    assert Box(GRID.to_world(first), GRID.to_world(second)).voxel_box(GRID) == expected
    assert Box.of(expected).voxel_box(GRID) == expected


def test_a_box_that_overhangs_is_cut():
    box = Box(VoxelPoint(-3, 0, 0), VoxelPoint(1, 20, 2))
    assert box.voxel_box(GRID) == VoxelBox.of((0, 0, 0), (2, 10, 3))
    assert box.overhangs(GRID)
    assert Box(VoxelPoint(1e102, 0, 0), VoxelPoint(1, 1, 2)).voxel_box(GRID).start_dhw == (1, 0, 0)
    assert not Box(VoxelPoint(0, 0, 0), VoxelPoint(1, 9, 2)).overhangs(GRID)


def test_a_scribble_goes_from_point_to_point():
    scribble = Scribble.along([VoxelPoint(1, 2, 2), VoxelPoint(1, 2, 5), VoxelPoint(1, 4, 5)], GRID)
    assert voxels_of(scribble) == [[1, 2, 2], [1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 3, 5], [1, 4, 5]]


def test_a_lasso_holds_the_voxels_inside_its_curve_on_any_axis():
    square = [(1.5, 1.5), (1.5, 4.5), (3.5, 4.5), (3.5, 1.5)]
    axial = Lasso.around([VoxelPoint(2, h, w) for h, w in square], GRID)
    assert voxels_of(axial) == [[2, h, w] for h in (2, 3) for w in (2, 3, 4)]
    sagittal = Lasso.around([VoxelPoint(d, h, 5) for d, h in square], GRID)
    assert voxels_of(sagittal) == [[d, h, 5] for d in (2, 3) for h in (2, 3, 4)]


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: Line(VoxelPoint(1, 1, 1), VoxelPoint(1, 1, 1)).check(GRID), "no length"),
        (lambda: Line(VoxelPoint(1, 1, 1), VoxelPoint(9, 1, 1)).check(GRID), "outside the scan"),
        (lambda: Box(VoxelPoint(7, 0, 0), VoxelPoint(9, 3, 3)).check(GRID), "outside the scan"),
        (lambda: Box(VoxelPoint(1, 1, 1), VoxelPoint(1, 1, 1)).check(GRID), "single voxel"),
        (lambda: Box(VoxelPoint(1, 1, np.nan), VoxelPoint(1, 1, 1)).check(GRID), "not finite"),
        (lambda: Scribble.along([VoxelPoint(1, 1, 1)], GRID), "two points"),
        (lambda: Lasso.around([VoxelPoint(1, 1, 1), VoxelPoint(1, 5, 1)], GRID), "three points"),
        (lambda: Lasso.around([VoxelPoint(n, n, n) for n in (0, 2, 4)], GRID), "on no slice"),
        (lambda: Lasso.around([VoxelPoint(1, 1, w) for w in (0, 2, 4)], GRID), "no voxel lies inside"),
        (lambda: Scribble(EMPTY).check(GRID), "no voxel"),
        (lambda: GivenMask(PackedMask.of(np.ones((7, 2, 2)))).check(GRID), "draw on this scan"),
        (lambda: check_any_prompt_inside([Click(VoxelPoint(1, 1, 1), foreground=False)]), "no click inside"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(refused, words):
    with pytest.raises(ClickError, match=words) as raised:
        refused()
    assert "\n" not in str(raised.value)


def test_a_line_has_its_ends_in_the_patient():
    first, second = Line(VoxelPoint(1, 1, 1), WorldPointRAS(0, 0, 0)).ends(GRID)
    assert first == GRID.to_world(VoxelPoint(1, 1, 1))
    assert second == WorldPointRAS(0, 0, 0)
