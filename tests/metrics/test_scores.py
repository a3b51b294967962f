import numpy as np
import pytest

from clickvol.metrics import scores
from clickvol.metrics.scores import Measure, mask_measures, picture_measures, score_masks, score_pictures


def test_columns_of_volumes_and_pictures():
    columns = [(m.name, m.title, m.digits, m.with_interval) for m in mask_measures((1.5,))]
    assert columns == [
        ("dice", "Dice", 3, True),
        ("iou", "IoU", 3, False),
        ("nsd_1.5mm", "NSD 1.5 mm", 3, True),
        ("hd95_mm", "HD95 (mm)", 1, False),
        ("assd_mm", "ASSD (mm)", 2, False),
        ("volume_error_ml", "abs. volume error (ml)", 1, False),
        ("lesion_recall", "lesion recall", 3, False),
        ("lesion_precision", "lesion precision", 3, False),
        ("lesion_f1", "lesion F1", 3, False),
        ("lesion_dice", "Dice per lesion", 3, False),
    ]
    columns = [(m.name, m.title, m.digits, m.with_interval) for m in picture_measures()]
    assert columns == [
        ("dice", "Dice", 3, True),
        ("iou", "IoU", 3, False),
        ("mae", "MAE", 4, False),
        ("boundary_f", "boundary F", 3, False),
    ]


def test_a_picture_is_scored_on_its_only_slice():
    prediction, truth = np.zeros((1, 20, 30), np.uint8), np.zeros((1, 20, 30), np.uint8)
    prediction[0, 5:15, 10:20], truth[0, 5:15, 10:25] = 1, 7
    # Tolerance: one pixel. Six of 36 pixels of the mask's boundary are farther away, on its right side; of
    # 46 of the true one the ten of the right side and three of either long one.
    assert score_pictures(prediction, truth) == {
        "dice": 200 / 250,
        "iou": 100 / 150,
        "mae": 50 / 600,
        "boundary_f": pytest.approx(2 * (30 / 36) * (30 / 46) / (30 / 36 + 30 / 46)),
    }


def test_two_bars_that_overlap_in_half():
    prediction, truth = np.zeros((3, 3, 10), np.uint8), np.zeros((3, 3, 10), np.uint8)
    prediction[1, 1, 1:5], truth[1, 1, 3:7] = 1, 2
    row = score_masks(prediction, truth, (5.0, 2.0, 1.0))
    assert row["dice"] == 0.5
    assert row["iou"] == pytest.approx(1 / 3)
    assert row["truth_ml"] == row["mask_ml"] == pytest.approx(0.04)
    assert row["lesion_recall"] == row["lesion_precision"] == row["lesion_f1"] == 1.0
    assert row["lesion_dice"] == 0.5
    # The ends are two voxels of 1 mm apart, everything else less.
    assert row["nsd_1mm"] < 1.0
    assert row["nsd_2mm"] == row["nsd_5mm"] == 1.0
    assert row["hd95_mm"] == 2.0
    assert 0 < row["assd_mm"] < 1.0


def test_the_surface_distance_is_the_one_of_95_percent():
    rng = np.random.default_rng(0)
    masks = rng.random((2, 12, 12, 12)) < 0.05
    pair = scores.MaskPair(*masks, (3.0, 1.1, 0.7))
    row = score_masks(*masks, (3.0, 1.1, 0.7))
    assert row["hd95_mm"] == pair.surfaces.hausdorff_mm(95.0) == pair.surfaces.hausdorff_mm()
    assert len({pair.surfaces.hausdorff_mm(percent) for percent in (94.0, 95.0, 96.0)}) == 3


def test_the_volume_error_has_no_sign():
    truth = np.zeros((3, 3, 10), bool)
    truth[1, 1, 1:5] = True
    for length in (2, 6):
        prediction = np.zeros_like(truth)
        prediction[1, 1, 1 : 1 + length] = True
        assert score_masks(prediction, truth, (10, 10, 10))["volume_error_ml"] == pytest.approx(2.0)


def test_the_tolerances_can_be_chosen():
    prediction, truth = np.zeros((3, 3, 10), bool), np.zeros((3, 3, 10), bool)
    prediction[1, 1, 1], truth[1, 1, 5] = True, True
    row = score_masks(prediction, truth, (1, 1, 1), (2.0, 3.5, 4.0))
    assert [row[name] for name in ("nsd_2mm", "nsd_3.5mm", "nsd_4mm")] == [0.0, 0.5, 1.0]
    assert "nsd_1mm" not in row


def test_an_empty_mask_has_the_scores_of_nothing():
    truth = np.zeros((4, 4, 4), bool)
    truth[1:3, 1:3, 1:3] = True
    assert score_masks(np.zeros_like(truth), truth, (1.0, 1.0, 10.0)) == {
        "dice": 0.0,
        "iou": 0.0,
        "nsd_1mm": 0.0,
        "nsd_2mm": 0.0,
        "nsd_5mm": 0.0,
        "hd95_mm": None,
        "assd_mm": None,
        "volume_error_ml": pytest.approx(0.08),
        "lesion_recall": 0.0,
        "lesion_precision": None,
        "lesion_f1": 0.0,
        "lesion_dice": 0.0,
        "truth_ml": pytest.approx(0.08),
        "mask_ml": 0.0,
    }


def test_two_empty_masks_agree():
    empty = np.zeros((4, 4, 4), bool)
    row = score_masks(empty, empty, (1.0, 1.0, 1.0))
    assert [row[name] for name in ("dice", "iou", "nsd_1mm")] == [1.0, 1.0, 1.0]
    assert row["hd95_mm"] is row["assd_mm"] is row["lesion_recall"] is row["lesion_f1"] is None


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        score_masks(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), (1, 1, 1))


def test_a_measure_is_one_line(monkeypatch):
    """A line in the list is enough: the scores of every mask have the number."""
    misses = Measure("missed", "missed voxels", 0, lambda pair: float((pair.truth & ~pair.prediction).sum()))
    monkeypatch.setattr(scores, "mask_measures", lambda tolerances: (*mask_measures(tolerances), misses))
    truth = np.zeros((3, 3, 10), bool)
    truth[1, 1, 1:5] = True
    assert score_masks(np.zeros_like(truth), truth, (1, 1, 1))["missed"] == 4.0
