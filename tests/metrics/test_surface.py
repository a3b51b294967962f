import numpy as np
import pytest
from scipy import ndimage

from clickvol.metrics.surface import surface_distances

SPACING = (5.0, 0.8, 0.8)
SHAPES = "the masks have shapes {} and {}, which must be equal and of three axes"


def _plates(gap, spacing=(1.0, 1.0, 1.0)):
    """Two plates that fill the array across: their surfaces are `gap` slices apart."""
    prediction, truth = np.zeros((20, 12, 12), bool), np.zeros((20, 12, 12), bool)
    prediction[5 + gap : 9 + gap], truth[5:9] = True, True
    return surface_distances(prediction, truth, spacing)


def _ellipsoid(centre=(10, 20, 20), radii_mm=(20.0, 10.0, 8.0), shape=(20, 40, 40)):
    offsets = np.indices(shape).T - centre
    return ((offsets * SPACING / radii_mm) ** 2).sum(axis=-1).T <= 1


def _blobs(seed, shape=(14, 18, 22)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise > np.quantile(noise, 0.8)


def test_a_mask_has_no_distance_to_itself():
    mask = _ellipsoid()
    distances = surface_distances(mask, mask, SPACING)
    assert distances.nsd(0.0) == 1.0
    assert distances.hausdorff_mm() == distances.hausdorff_mm(100) == distances.average_mm() == 0.0


def test_two_single_voxels_are_as_far_apart_as_their_corners():
    prediction, truth = np.zeros((3, 3, 9), bool), np.zeros((3, 3, 9), bool)
    prediction[1, 1, 1] = truth[1, 1, 5] = True
    distances = surface_distances(prediction, truth, (1.0, 1.0, 2.0))
    # Corners 1 and 2 of w against 5 and 6: the near ones are 3 steps from each other's, the far ones 4.
    assert sorted(distances.from_prediction_mm) == [6.0] * 4 + [8.0] * 4
    assert distances.average_mm() == pytest.approx(7.0)
    assert distances.hausdorff_mm() == 8.0
    assert distances.nsd(5.9) == 0.0
    assert distances.nsd(6.0) == pytest.approx(0.5)
    assert distances.nsd(8.0) == 1.0


def test_the_sides_of_moved_plates_weigh_by_area():
    distances = _plates(gap=1)
    assert distances.nsd(0.99) < 0.5
    assert distances.nsd(1.0) == 1.0
    assert distances.hausdorff_mm() == 1.0


def test_a_tolerance_of_whole_voxels_is_met_whatever_their_size():
    assert _plates(gap=5, spacing=(0.2, 1.0, 1.0)).nsd(1.0) == 1.0


def test_a_small_far_element_moves_the_95_percent_distance_only_beyond_its_share():
    prediction, truth = np.zeros((20, 20, 40), bool), np.zeros((20, 20, 40), bool)
    truth[5:15, 5:15, 5:15] = True
    prediction[truth] = True
    prediction[10, 10, 35] = True
    distances = surface_distances(prediction, truth, (1.0, 1.0, 1.0))
    assert distances.hausdorff_mm(95) == 0.0
    assert distances.hausdorff_mm(100) == 36 - 15


def test_a_mask_at_the_border_has_a_surface_there():
    full = np.ones((4, 5, 6), bool)
    padded = np.pad(full, 3)
    inside = surface_distances(full, full, SPACING)
    around = surface_distances(padded, padded, SPACING)
    assert inside.truth_areas_mm2.sum() == pytest.approx(around.truth_areas_mm2.sum())


def test_where_the_masks_lie_in_the_array_does_not_matter():
    prediction, truth = _blobs(1), _blobs(2)
    moved = [np.pad(mask, ((30, 2), (0, 9), (5, 1))) for mask in (prediction, truth)]
    one, other = surface_distances(prediction, truth, SPACING), surface_distances(*moved, SPACING)
    np.testing.assert_array_equal(one.from_truth_mm, other.from_truth_mm)
    assert one.nsd(2.0) == other.nsd(2.0)


def test_two_empty_masks_agree_without_a_distance():
    empty = np.zeros((3, 4, 5), np.uint8)
    distances = surface_distances(empty, empty, SPACING)
    assert distances.nsd(1.0) == 1.0
    assert distances.hausdorff_mm() is None
    assert distances.average_mm() is None


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_agrees_nowhere_and_has_no_distance(swap):
    masks = [np.zeros((3, 4, 5), np.uint8), np.ones((3, 4, 5), np.uint8)]
    distances = surface_distances(*(masks[::-1] if swap else masks), SPACING)
    assert distances.nsd(1000.0) == 0.0
    assert distances.hausdorff_mm() is None
    assert distances.average_mm() is None


@pytest.mark.parametrize(
    ("shapes", "spacing", "message"),
    [
        (((2, 2, 2), (2, 2, 3)), SPACING, SHAPES.format((2, 2, 2), (2, 2, 3))),
        (((2, 2), (2, 2)), SPACING, SHAPES.format((2, 2), (2, 2))),
        *(
            (((2, 2, 2), (2, 2, 2)), spacing, f"the spacing must be three numbers of mm above 0, not {spacing}")
            for spacing in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0), (1.0, float("inf"), 1.0))
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(shapes, spacing, message):
    with pytest.raises(ValueError, match="must be") as refused:
        surface_distances(np.ones(shapes[0]), np.ones(shapes[1]), spacing)
    assert str(refused.value) == message


def _pairs():
    """Pairs of masks like those that real predictions make, on slices of 5 mm."""
    truth = _ellipsoid()
    small = _ellipsoid(radii_mm=(8.0, 3.0, 3.0))
    speckled = truth | (np.random.default_rng(5).random(truth.shape) < 0.002)
    yield "moved in the slice", np.roll(truth, 2, axis=2), truth
    yield "moved by a slice", np.roll(truth, 1, axis=0), truth
    yield "small", np.roll(small, 1, axis=1), small
    yield "speckled", speckled, truth
    yield "at the border", _ellipsoid(centre=(0, 3, 20)), _ellipsoid(centre=(1, 0, 22))
    for seed in range(4):
        yield f"blobs {seed}", _blobs(seed), _blobs(seed + 100)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the other implementation
@pytest.mark.parametrize(("prediction", "truth"), [pair[1:] for pair in _pairs()])
def test_scores_are_those_of_the_other_implementation(prediction, truth):
    other = pytest.importorskip("surface_distance")
    theirs = other.compute_surface_distances(truth, prediction, SPACING)
    ours = surface_distances(prediction, truth, SPACING)
    for tolerance in (0.5, 1.0, 2.0, 5.0):
        expected = other.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert ours.nsd(tolerance) == pytest.approx(expected, abs=1e-6)
    for percent in (50, 95, 100):
        expected = other.compute_robust_hausdorff(theirs, percent)
        assert ours.hausdorff_mm(percent) == pytest.approx(expected, abs=1e-6)
    truth_mean, prediction_mean = other.compute_average_surface_distance(theirs)
    areas = ours.truth_areas_mm2.sum(), ours.prediction_areas_mm2.sum()
    expected = (truth_mean * areas[0] + prediction_mean * areas[1]) / sum(areas)
    assert ours.average_mm() == pytest.approx(expected, abs=1e-6)
