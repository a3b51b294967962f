"""The geometry of viewing, widening and refining, with an all-knowing network.

The network is replaced by the true shape: so what is tested is only whether the views lie where they have to,
and whether everything comes back to the right place.
"""

import numpy as np
import pytest

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.metrics.overlap import dice
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.placed_prompts import Extent
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
        offsets_mm = grid.offsets_ras_mm(grid.box, WorldPointRAS.of(self.centre))
        radius = np.sqrt(sum((o / half) ** 2 for o, half in zip(offsets_mm, self.half_axes, strict=True)))
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


class Scripted:
    """Answers with one block of patch voxels after the other, or a value for all, then with nothing."""

    def __init__(self, *blocks, value=1.0):
        self.blocks = list(blocks)
        self.value = value
        self.fields: list[FieldOfView] = []

    def __call__(self, field_of_view, prior=None):
        answer = np.zeros(field_of_view.shape_dhw, dtype=np.float32)
        if len(self.fields) < len(self.blocks):
            match self.blocks[len(self.fields)]:
                case float(value):
                    answer[:] = value
                case sides:
                    answer[tuple(slice(*side) for side in sides)] = self.value
        self.fields.append(field_of_view)
        return answer


WIDE = make_grid((200, 200, 200), (2.0, 2.0, 2.0))  # 0 to 398 mm, its middle at 199


def assert_fields(fields, *expected):
    for field, (centre, voxel_mm) in zip(fields, expected, strict=True):
        assert field.shape_dhw == fields[0].shape_dhw
        assert field.voxel_mm == pytest.approx(voxel_mm)
        assert field.centre.as_array() == pytest.approx(np.array(centre, dtype=float))


@pytest.mark.parametrize(
    ("second", "centre", "voxel_mm", "reason"),
    [
        ((238.4, 200, 200), (200, 200, 200), 3, "first view, centred on the first click"),  # 0.4 of 96 mm
        ((240, 200, 200), (220, 200, 200), 3, "first view, wide enough for all clicks inside"),
        ((200, 360, 200), (200, 280, 200), 6, "first view, wide enough for all clicks inside"),  # 1.2 x 160 mm
        ((200, 200, 0), (200, 200, 100), 7, "first view, wide enough for all clicks inside"),
    ],
)
def test_the_first_view_holds_all_clicks(second, centre, voxel_mm, reason):
    network = Scripted()
    result, _ = run(network, WIDE, (200, 200, 200), second)
    assert_fields(network.fields, (centre, voxel_mm))
    assert [view.reason for view in result.views] == [reason]


def test_a_wider_view_follows_the_object_and_a_fitted_one_comes_last():
    network = Scripted([(0, 20), (10, 20), (12, 22)], [(12, 20)] * 3)
    result, mask = run(network, WIDE, (199, 199, 199))
    # The middle of the block is 3 mm to the right and posterior and 18 mm inferior; views move in steps of 9.
    # Then 8 voxels of 4.5 mm are 1.2 times 36 mm on 32 voxels: 1.35 mm, rounded up to an eighth of an octave.
    fitted = 2**0.5
    low = (199, 199, 199 - 6 * 2 * fitted)
    assert_fields(network.fields, ((199, 199, 199), 3), ((199, 199, 181), 4.5), (low, fitted))
    reasons = ["first view, centred on the first click", "widened: the object touched the border"]
    assert [view.reason for view in result.views] == [*reasons, "fitted to the object"]
    # The fitted view has lost the object, so the one before it stands.
    assert dice(mask[82:100, 91:109, 91:109], np.ones((18, 18, 18))) > 0.95
    assert mask.sum() == mask[82:100, 91:109, 91:109].sum()


def test_a_coarse_object_is_covered_with_eight_finer_views():
    network = Scripted([(0, 32), (8, 24), (8, 24)], [(2, 30)] * 3, [(4, 28)] * 3)
    result, _ = run(network, WIDE, (199, 199, 199))
    # Two voxels to the border are enough. 1.2 x 28 x 4.5 mm on 32 voxels: 4.725 mm, rounded up to an eighth of
    # an octave; tiles of half that share a quarter with the next.
    fitted = 2**2.25
    offsets = (-6 * fitted, 6 * fitted)
    tiles = [((199 + w, 199 + h, 199 + d), fitted / 2) for d in offsets for h in offsets for w in offsets]
    assert_fields(network.fields, *(((199, 199, 199), voxel_mm) for voxel_mm in (3, 4.5, fitted)), *tiles)
    assert [view.reason for view in result.views[3:]] == [f"refined, part {n} of 8" for n in range(1, 9)]
    # The tiles say nothing, so what was sure before is a half; beyond them it stays.
    middle = [100 - start for start in result.box.start_dhw]
    assert result.probability[tuple(middle)] == pytest.approx(0.5)
    assert result.judged_field == network.fields[2]


def test_a_long_object_is_covered_with_three_views_in_a_row():
    network = Scripted([(0, 32), (8, 24), (8, 24)], [(2, 30)] * 3, [(3, 31), (12, 20), (14, 18)])
    run(network, WIDE, (199, 199, 199))
    # 28 voxels, and a tenth more, are 30.8: two tiles of 16 that begin every 12 hold 28. The middle is one off.
    fitted = 2**2.25
    tiles = [((199, 199, 199 + (1 + 12 * n) * fitted), fitted / 2) for n in (-1, 0, 1)]
    assert_fields(network.fields[3:], *tiles)


def test_tiles_become_coarser_until_they_are_eight():
    network = Scripted([(0, 32), (8, 24), (8, 24)], [(2, 30)] * 3, [(2, 30)] * 3)
    run(network, WIDE, (199, 199, 199))
    # Two tiles hold 28 voxels, so 30.8 need them coarser by a tenth: two eighths of an octave.
    offsets = (-12 * 2**1.5, 12 * 2**1.5)
    tiles = [((199 + w, 199 + h, 199 + d), 2**1.5) for d in offsets for h in offsets for w in offsets]
    assert_fields(network.fields[3:], *tiles)


@pytest.mark.parametrize(
    ("low", "high", "steps", "voxel_mm"),
    [
        # 1.2 x 40 mm on 32 voxels: 1.5 mm, rounded up to an eighth of an octave. The middle is 20, 10 and 2 mm
        # from that of the scan, in steps of 3.08 mm.
        ((159, 179, 199), (199, 199, 203), (-6, -3, 1), 2 ** (5 / 8)),
        ((198, 198, 202), (200, 200, 206), (0, 0, 2), 1),
        ((205 - 8e-7, 199, 199), (207 - 8e-7, 199, 199), (4, 0, 0), 1),  # 3.5 steps but for the last digits
        ((0, 0, 0), (398, 398, 398), (0, 0, 0), 7),
    ],
)
def test_a_size_that_is_given_is_the_only_view(low, high, steps, voxel_mm):
    network = Scripted([(12, 20)] * 3)
    extent = Extent(np.array(low, float), np.array(high, float), is_whole=True)
    place = WorldPointRAS.of(np.add(low, high) / 2)
    result = zoom_to_object(network, WIDE, [place], PLAN, SHAPE, extent)
    assert_fields(network.fields[:1], (199 + np.array(steps) * 2 * voxel_mm, voxel_mm))
    reasons = ["fitted to the size that was given", "refined, part 1 of 1"]  # coarse voxels are refined
    assert [view.reason for view in result.views] == reasons[: 2 if voxel_mm == 7 else 1]


def test_an_object_beyond_the_widest_view_is_said():
    network = Scripted(*[[(0, 32)] * 3] * 9)
    result, _ = run(network, make_grid((300, 300, 300), (3.0, 3.0, 3.0)), (450, 450, 450))
    assert [field.voxel_mm for field in network.fields[:4]] == [3, 4.5, 6.75, 7]
    assert result.warnings == (
        "the object reaches the border of the widest field of view (224 mm); parts beyond it are missing; "
        "click there, too, and join the masks",
    )


def test_a_view_moves_with_the_object_as_far_as_the_click_stays_in_it():
    edge = [(0, 2), (0, 2), (30, 32)]
    network = Scripted(edge, edge, [(4, 8), (6, 12), (10, 20)])
    zoom_to_object(network, WIDE, [WorldPointRAS(199, 199, 199)], PLAN, (16, 24, 32))
    # The edge is 15 voxels to the right, 11 posterior and 7 inferior of the middle: 45, 33 and 21 mm, in steps
    # of 9. Then 4.5 mm times that; 0.4 of the sides of 216, 162 and 108 mm are allowed, in steps of 13.5.
    # What is there is 67.5 mm wide: 1.2 times that on 32 voxels are 2.53 mm, the 11th eighth of an octave.
    fitted = 2 ** (11 / 8)
    steps = 2 * fitted * np.array([14, -17, -10])  # of 74.25, -87.75 and -54 mm
    assert_fields(
        network.fields,
        ((199, 199, 199), 3),
        ((244, 163, 181), 4.5),
        ((280, 131.5, 158.5), 6.75),
        (199 + steps, fitted),
    )


@pytest.mark.parametrize(
    ("num_slices", "click_d", "block_d", "is_cut"),
    [
        (60, 15.7, (0, 20), False),  # the scan's first slice is 0.2 voxels before that of the patch
        (60, 16.3, (0, 20), True),  # 0.8: there is a slice that is not seen
        (60, 30, (1, 20), True),
        (60, 30, (2, 20), False),
        (60, 30, (10, 30), False),
        (60, 30, (10, 31), True),
        (60, 43.3, (10, 32), False),
        (60, 42.7, (10, 32), True),
    ],
)
def test_an_object_is_cut_off_two_voxels_from_a_border_behind_which_the_scan_goes_on(
    num_slices, click_d, block_d, is_cut
):
    network = Scripted([block_d, (8, 24), (8, 24)])
    run(network, make_grid((num_slices, 100, 100), (3, 3, 3)), (150, 150, 3 * click_d))
    assert [field.voxel_mm > 4 for field in network.fields[1:]] == [is_cut]


def test_a_part_without_a_click_makes_no_view_wider():
    parts = np.zeros(SHAPE, np.float32)
    parts[12:20, 12:20, 12:20] = parts[:2, 12:20, 12:20] = 1
    asked = []
    run(lambda field, _: asked.append(field) or parts, WIDE, (199, 199, 199))
    assert_fields(asked, ((199, 199, 199), 3), ((199, 199, 199), 1))


def test_no_more_than_seven_views_search_for_the_end_of_an_object():
    plan = FieldOfViewPlan(first_voxel_mm=1.0, finest_voxel_mm=1.0, coarsest_voxel_mm=100.0)
    network = Scripted(*[[(0, 32)] * 3] * 7)
    result, _ = run(network, make_grid((50, 50, 50), (10, 10, 10)), (245, 245, 245), plan=plan)
    assert [field.voxel_mm for field in network.fields[:7]] == [1.5**n for n in range(7)]
    assert [view.reason for view in result.views[6:]] == [
        "widened: the object touched the border",
        "fitted to the object",
    ]
    assert "widest field of view (364 mm)" in result.warnings[0]  # 32 voxels of 11.39 mm


def test_a_fitted_view_fades_into_the_one_before_where_the_object_leaves_it():
    network = Scripted([(4, 12), (2, 6), (6, 18)], 0.6, value=0.8)
    grid, plan = (
        make_grid((40, 40, 40), (1, 1, 1)),
        FieldOfViewPlan(first_voxel_mm=1.0, finest_voxel_mm=1.0, coarsest_voxel_mm=2.0),
    )
    result = zoom_to_object(network, grid, [WorldPointRAS(19.5, 19.5, 19.5)], plan, (16, 8, 24))
    assert_fields(network.fields, *[((19.5, 19.5, 19.5), 1)] * 2)
    # An eighth of the sides: the whole fades over 2, 1 and 3 voxels.
    fading = [np.array(ramp) for ramp in ([0, 0.5, *[1] * 12, 0.5, 0], [0, *[1] * 6, 0])]
    fading.append(np.array([0, 1 / 3, 2 / 3, *[1] * 18, 2 / 3, 1 / 3, 0]))
    share = np.minimum(fading[0][:, None, None], np.minimum(fading[1][:, None], fading[2]))
    before = np.zeros((16, 8, 24))
    before[4:12, 2:6, 6:18] = 0.8
    expected = np.zeros((40, 40, 40))
    expected[12:28, 16:24, 8:32] = before * (1 - share) + 0.6 * share
    probability = np.zeros((40, 40, 40))
    probability[result.box.slices] = result.probability
    np.testing.assert_allclose(probability, expected, atol=1e-6)
    assert result.probability.dtype == np.float32


COARSE = FieldOfViewPlan(first_voxel_mm=1.0, finest_voxel_mm=1.0, coarsest_voxel_mm=2.0)
AROUND = Extent(np.full(3, 14.5), np.full(3, 44.5), is_whole=True)  # 30 mm around the middle of 60


def test_finer_views_are_averaged_with_the_prompt_and_blended_where_they_overlap():
    network = Scripted([(2, 14)] * 3, 0.5, 0.1, value=0.9)
    grid = make_grid((60, 60, 60), (1, 1, 1))
    result = zoom_to_object(network, grid, [WorldPointRAS(29.5, 29.5, 29.5)], COARSE, (16, 16, 16), AROUND)
    # The block is 24 mm long from 17.5 mm on. Views of 16 mm begin at 15.5 and 27.5, in voxels of 1 mm.
    corners = [(29.5 + w, 29.5 + h, 29.5 + d) for d in (-6, 6) for h in (-6, 6) for w in (-6, 6)]
    assert_fields(network.fields, ((29.5, 29.5, 29.5), 2), *((corner, 1) for corner in corners))
    line = np.zeros(60)
    line[result.box.start_dhw[2] : result.box.stop_dhw[2]] = result.probability[
        24 - result.box.start_dhw[0], 24 - result.box.start_dhw[1]
    ]
    # Voxel centres of 2 mm lie at 16.5 with 0 and at 18.5 with 0.9.
    expected = {
        16: 0,
        17: 0.225 / 2 + (0.225 + 0.5) / 2 / 2,  # half of the finer view
        18: (0.675 + 0.5) / 2,
        24: (0.9 + 0.5) / 2,
        28: 0.7,
        29: (0.7 + 0.5 * 0.5) / 1.5,
        30: (0.5 * 0.7 + 0.5) / 1.5,
        31: 0.5,
        35: (0.9 + 0.1) / 2,
    }
    assert {at: float(line[at]) for at in expected} == pytest.approx(expected, abs=1e-6)


def test_finer_views_count_where_others_lie_beyond_the_scan():
    network = Scripted([(2, 14)] * 3, *[0.0] * 4, 0.5, value=0.9)
    grid = make_grid((20, 60, 60), (1, 1, 1), corner_ras=(0, 0, 35))
    result = zoom_to_object(network, grid, [WorldPointRAS(29.5, 29.5, 29.5)], COARSE, (16, 16, 16), AROUND)
    # In steps of 4 mm from the middle of the scan, 44.5, the first view lies at 28.5; the lower four end at 30.
    assert [field.centre.z for field in network.fields] == [28.5, *[22.5] * 4, *[34.5] * 4]
    middle = np.subtract((1, 24, 24), result.box.start_dhw)
    assert result.probability[tuple(middle)] == pytest.approx((0.9 + 0.5) / 2)


def test_only_views_with_something_in_doubt_are_refined():
    bars = np.zeros((16, 16, 16), np.float32)
    bars[2:4, 2:4, 2:14] = bars[2:4, 2:14, 2:4] = 1
    asked = []

    def network(field_of_view, prior):
        asked.append(field_of_view)
        return bars if prior is None else prior

    grid = make_grid((60, 60, 60), (1, 1, 1))
    result = zoom_to_object(network, grid, [WorldPointRAS(18.5, 18.5, 18.5)], COARSE, (16, 16, 16), AROUND)
    # In the fourth of four, between the bars, there is nothing.
    reasons = [f"refined, part {number} of 4" for number in (1, 2, 3)]
    assert [view.reason for view in result.views[1:]] == reasons
    # A thin scan that the object fills: all is sure everywhere.
    sure = Scripted(1.0)
    thin = make_grid((6, 6, 60), (1, 1, 1))
    whole = Extent(np.array([14.5, 0, 0]), np.array([44.5, 5, 5]), is_whole=True)
    zoom_to_object(sure, thin, [WorldPointRAS(29.5, 2.5, 2.5)], COARSE, (16, 16, 16), whole)
    assert_fields(sure.fields, ((29.5, 2.5, 2.5), 2))


def test_an_answer_beyond_the_scan_is_an_empty_probability():
    network = Scripted([(0, 2), (0, 2), (0, 2)])  # 45 mm from the click, the scan ends after 19
    result, mask = run(network, make_grid((20, 20, 20), (2, 2, 2)), (19, 19, 19))
    assert not mask.any()
    assert (result.box, result.probability.tolist()) == (VoxelBox.whole((1, 1, 1)), [[[0]]])


OFF_MIDDLE = PLAN.model_copy(update={"finest_voxel_mm": 1.0, "click_off_middle": 0.25})


def test_the_click_lies_off_the_middle_of_the_fitted_view_where_there_is_room():
    grid = make_grid((101, 101, 101), (1.0, 1.0, 1.0))
    network = AllKnowing((50, 50, 50), (4, 4, 4))
    run(network, grid, (49, 50, 52), plan=OFF_MIDDLE)
    first, fitted = network.fields
    assert first.centre == WorldPointRAS(49, 50, 52)
    assert fitted.voxel_mm == 1.0
    # 32 mm: a quarter is 8, away from where the click already lies: 49 + 8, 50 + 8, 52 - 8, to steps of 2 mm.
    assert fitted.centre.as_array().tolist() == pytest.approx([58, 58, 44], abs=2)
    off = fitted.centre.as_array() - [49, 50, 52]
    assert (np.abs(off) >= 7).all()
    assert (np.sign(off) == [1, 1, -1]).all()


def test_an_object_that_fills_the_fitted_view_stays_whole_in_it():
    grid = make_grid((101, 101, 101), (1.0, 1.0, 1.0))
    network = AllKnowing((50, 50, 50), (13, 5, 13))
    _, mask = run(network, grid, (50, 50, 50), plan=OFF_MIDDLE)
    fitted = network.fields[1]
    length = fitted.voxel_mm * 32
    low, high = fitted.centre.as_array() - length / 2, fitted.centre.as_array() + length / 2
    assert (low <= np.array([37, 45, 37])).all()
    assert (high >= np.array([63, 55, 63])).all()
    # There is room across it, and none along.
    assert abs(fitted.centre.y - 50) >= 7
    assert abs(fitted.centre.x - 50) <= 2
    assert dice(mask, network.truth(grid)) > 0.97


def test_a_click_far_off_the_middle_moves_nothing():
    grid = make_grid((101, 101, 101), (1.0, 1.0, 1.0))
    places = []
    for plan in (PLAN, OFF_MIDDLE):
        network = AllKnowing((50, 50, 50), (12, 12, 12))
        # 9 of 32 to 36 mm away in each direction.
        run(network, grid, (59.5, 59.5, 59.5), plan=plan)
        places.append(network.fields[-1])
    assert places[0] == places[1]


def test_size_that_was_given_is_not_moved_off_the_middle():
    grid = make_grid((101, 101, 101), (1.0, 1.0, 1.0))
    network = AllKnowing((50, 50, 50), (5, 5, 5))
    extent = Extent(np.array([45.0, 45, 45]), np.array([55.0, 55, 55]), is_whole=True)
    zoom_to_object(network, grid, [WorldPointRAS(50, 50, 50)], OFF_MIDDLE, SHAPE, extent)
    assert network.fields[0].centre == WorldPointRAS(50, 50, 50)
