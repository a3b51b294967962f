import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.prompts.click import Click
from reference.grids import any_grid, make_grid

GRID = make_grid((4, 5, 6), (3, 2, 1), order=(2, 1, 0), signs=(1, -1, -1), at=(10, 20, 30))


def test_a_click_is_made_in_three_spaces():
    assert Click.at((1, 2, 3)) == Click(VoxelPoint(d=3, h=2, w=1), foreground=True)
    assert Click.at((1, 2, 3), space="ras") == Click(WorldPointRAS(1, 2, 3))
    assert Click.at((1, 2, 3), space="lps", foreground=False) == Click(
        WorldPointRAS(-1, -2, 3), foreground=False
    )


def test_the_three_spaces_name_the_same_place():
    world = WorldPointRAS(x=10 - 4, y=20 - 2 * 3, z=30 + 3 * 2)
    assert Click.at((4, 3, 2)).world(GRID) == world
    assert Click.at((6, 14, 36), space="ras").world(GRID) == world
    assert Click.at((-6, -14, 36), space="lps").world(GRID) == world


@pytest.mark.parametrize("space", ["ijk", "ras", "lps"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_click_that_is_not_finite_is_refused(space, value):
    with pytest.raises(ClickError, match="is not finite; give three finite numbers"):
        Click.at((0, value, 0), space=space).world(GRID)


@pytest.mark.parametrize("place", [(6, 0, 0), (0, 5, 0), (0, 0, 4), (-1, 0, 0)])
def test_a_voxel_outside_is_told_the_valid_range(place):
    with pytest.raises(ClickError) as caught:
        Click.at(place).world(GRID)
    assert str(caught.value) == (
        f"click ({place[0]}, {place[1]}, {place[2]}) lies outside the scan; the valid voxel indices are "
        "i 0..5, j 0..4, k 0..3 (or give millimetres, in the space ras or lps)"
    )


def test_millimetres_outside_are_told_the_extent():
    with pytest.raises(ClickError) as caught:
        Click.at((-11, 20, 30), space="lps").world(GRID)
    assert str(caught.value) == (
        "click at RAS (11, -20, 30) mm lies outside the scan, which covers x 5.0..10.0, y 12.0..20.0, "
        "z 30.0..39.0 mm RAS (in LPS x and y change sign)"
    )


@given(grid=any_grid(), shares=st.tuples(*[st.floats(0, 1)] * 3))
def test_the_voxel_of_a_click_and_its_millimetres_agree(grid, shares):
    voxel = VoxelPoint(*(s * (n - 1) for s, n in zip(shares, grid.shape_dhw, strict=True)))
    by_voxel = Click.at(voxel.to_ijk()).world(grid)
    by_mm = Click.at(by_voxel.to_lps(), space="lps").world(grid)
    assert by_mm.as_array() == pytest.approx(by_voxel.as_array(), abs=1e-9)
