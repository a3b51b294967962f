"""The geometry of viewing, widening and refining, with an all-knowing network.

The network is replaced by the true shape: so what is tested is only whether the views lie where they have to,
and whether everything comes back to the right place.
"""

import numpy as np
import pytest

from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.metrics.overlap import dice
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.zoom_refinement import zoom_to_object
from clickvol.weights.card import FieldOfViewPlan

PLAN = FieldOfViewPlan(first_voxel_mm=3.0, finest_voxel_mm=1.0, coarsest_voxel_mm=7.0)
SHAPE = (32, 32, 32)  # 96 mm in the first view, 224 mm at most


class AllKnowing:
    """Answers with an ellipsoid, as sharp as the voxels allow."""

    def __init__(self, centre_ras, half_axes_xyz):
        self.centre = np.array(centre_ras, dtype=float)
        self.half_axes = np.array(half_axes_xyz, dtype=float)
        self.fields: list[FieldOfView] = []
        self.priors = []

    def truth(self, grid: VolumeGrid) -> np.ndarray:
        return self._signed_mm(grid) > 0

    def _signed_mm(self, grid):
        index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape_dhw], indexing="ij"), -1)
        world = index @ grid.affine_ras_mm[:3, :3].T + grid.affine_ras_mm[:3, 3]
        radius = np.sqrt((((world - self.centre) / self.half_axes) ** 2).sum(-1))
        return (1 - radius) * self.half_axes.min()

    def __call__(self, field_of_view, prior=None):
        self.fields.append(field_of_view)
        self.priors.append(prior)
        signed = self._signed_mm(field_of_view.grid())
        return np.clip(0.5 + signed / field_of_view.voxel_mm, 0, 1).astype(np.float32)


def make_grid(shape_dhw, spacing_dhw_mm, corner_ras=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[[2, 1, 0], [0, 1, 2]] = spacing_dhw_mm
    affine[:3, 3] = corner_ras
    return VolumeGrid(shape_dhw, affine)


def run(network, grid, *places, plan=PLAN):
    result = zoom_to_object(network, grid, [WorldPointRAS(*place) for place in places], plan, SHAPE)
    mask = np.zeros(grid.shape_dhw, dtype=bool)
    mask[result.box.slices] = result.probability > 0.5
    return result, mask


def test_small_object_is_viewed_again_with_finer_voxels():
    grid = make_grid((100, 100, 100), (1.0, 1.0, 1.0))
    network = AllKnowing((50, 50, 50), (12, 12, 12))
    result, mask = run(network, grid, (47, 52, 50))
    assert network.fields[0].voxel_mm == 3.0
    # 1.2 times the object, as the first view shows it in whole voxels of 3 mm, on 32 voxels.
    assert network.fields[1].voxel_mm == pytest.approx(1.0)
    assert len(network.fields) == 2
    assert dice(mask, network.truth(grid)) > 0.97
    assert [view.reason for view in result.views] == [
        "first view, centred on the first click",
        "fitted to the object",
    ]
    assert result.warnings == ()


def test_large_object_is_refined_with_the_coarse_result_as_a_prompt():
    grid = make_grid((130, 130, 230), (1.0, 1.0, 1.0))
    network = AllKnowing((115, 65, 65), (95, 40, 40))
    run(network, grid, (115, 65, 65))
    tiles = [f for f, prior in zip(network.fields, network.priors, strict=True) if prior is not None]
    assert len(tiles) > 1
    coarse = [f for f, prior in zip(network.fields, network.priors, strict=True) if prior is None]
    assert all(tile.voxel_mm <= 0.8 * coarse[-1].voxel_mm for tile in tiles)
    assert max(prior.max() for prior in network.priors if prior is not None) > 0.99


def test_object_of_twice_the_patch_is_covered_from_one_click_near_its_end():
    grid = make_grid((130, 130, 230), (1.0, 1.0, 1.0))
    network = AllKnowing((115, 65, 65), (95, 40, 40))
    result, mask = run(network, grid, (40, 60, 65))
    assert network.truth(grid).any()
    assert any("widened" in view.reason for view in result.views)
    assert any("refined" in view.reason for view in result.views)
    assert dice(mask, network.truth(grid)) > 0.98


def test_a_tumour_of_300_mm_is_covered():
    plan = FieldOfViewPlan(first_voxel_mm=3.0, finest_voxel_mm=1.0, coarsest_voxel_mm=12.0)
    grid = make_grid((170, 80, 80), (2.0, 2.0, 2.0))
    network = AllKnowing((80, 80, 170), (60, 50, 150))
    result, mask = run(network, grid, (80, 80, 60), plan=plan)
    assert dice(mask, network.truth(grid)) > 0.97
    assert len(result.views) <= 7 + 1 + 8
    assert result.warnings == ()


def test_object_wider_than_the_widest_field_of_view_is_reported():
    grid = make_grid((150, 150, 150), (3.0, 3.0, 3.0))
    network = AllKnowing((225, 225, 225), (200, 200, 200))
    result, _ = run(network, grid, (225, 225, 225))
    assert any("widest field of view" in warning for warning in result.warnings)


def test_object_that_ends_with_the_scan_is_not_widened():
    grid = make_grid((20, 90, 90), (3.0, 1.0, 1.0))
    network = AllKnowing((45, 45, 30), (20, 20, 300))
    result, mask = run(network, grid, (45, 45, 30))
    assert result.warnings == ()
    # The object goes on for ever along d, but the scan does not.
    assert not any("widened" in view.reason for view in result.views)
    assert dice(mask, network.truth(grid)) > 0.97


@pytest.mark.parametrize("thickness_mm", [0.7, 5.0])
def test_single_slice(thickness_mm):
    grid = make_grid((1, 120, 120), (thickness_mm, 1.0, 1.0))
    network = AllKnowing((60, 60, 0), (25, 15, 10))
    _, mask = run(network, grid, (60, 55, 0))
    assert dice(mask, network.truth(grid)) > 0.96


def test_clicks_far_apart_are_taken_into_one_wide_first_look():
    grid = make_grid((60, 200, 200), (2.0, 1.0, 1.0))
    network = AllKnowing((100, 100, 60), (90, 30, 30))
    result, mask = run(network, grid, (30, 100, 60), (170, 100, 60))
    assert "all clicks" in result.views[0].reason
    assert dice(mask, network.truth(grid)) > 0.97


def test_nothing_found_gives_an_empty_probability():
    class Blind(AllKnowing):
        def __call__(self, field_of_view, prior=None):
            return np.zeros(field_of_view.shape_dhw, dtype=np.float32)

    result, mask = run(Blind((0, 0, 0), (1, 1, 1)), make_grid((20, 20, 20), (2, 2, 2)), (20, 20, 20))
    assert not mask.any()
    assert len(result.views) == 1


def test_a_small_change_of_the_object_asks_for_the_same_fields_of_view():
    grid = make_grid((100, 100, 100), (1.0, 1.0, 1.0))
    first = AllKnowing((50, 50, 50), (12, 12, 12))
    second = AllKnowing((50.5, 50, 50), (12.4, 12, 12))
    run(first, grid, (50, 50, 50))
    run(second, grid, (50, 50, 50))
    assert first.fields == second.fields


def test_the_middle_of_the_first_view_is_the_click():
    grid = make_grid((50, 50, 50), (2.0, 2.0, 2.0), corner_ras=(-10.0, 5.0, 100.0))
    network = AllKnowing((0, 0, 0), (1, 1, 1))
    place = grid.to_world(VoxelPoint(20, 30, 10))
    run(network, grid, (place.x, place.y, place.z))
    assert network.fields[0].centre == place
