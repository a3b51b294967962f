import numpy as np
import pytest

from clickvol.evaluation.records import NSD_TOLERANCES_MM
from clickvol.metrics.scores import TOLERANCES_MM, MaskScores, score_masks


def test_two_bars_that_overlap_in_half():
    prediction, truth = np.zeros((3, 3, 10), np.uint8), np.zeros((3, 3, 10), np.uint8)
    prediction[1, 1, 1:5], truth[1, 1, 3:7] = 1, 2
    scores = score_masks(prediction, truth, (5.0, 2.0, 1.0))
    assert scores.dice == 0.5
    assert scores.iou == pytest.approx(1 / 3)
    assert scores.truth_ml == scores.mask_ml == pytest.approx(0.04)
    assert scores.lesion_recall == 1.0
    # The ends are two voxels of 1 mm apart, everything else less.
    assert scores.nsd[0] < 1.0
    assert scores.nsd[1:] == (1.0, 1.0)
    assert scores.hd95_mm == 2.0
    assert 0 < scores.assd_mm < 1.0


def test_the_tolerances_can_be_chosen():
    prediction, truth = np.zeros((3, 3, 10), bool), np.zeros((3, 3, 10), bool)
    prediction[1, 1, 1], truth[1, 1, 5] = True, True
    assert score_masks(prediction, truth, (1, 1, 1), (2.0, 3.0, 4.0)).nsd == (0.0, 0.5, 1.0)


def test_an_empty_mask_has_scores_of_nothing_found():
    truth = np.zeros((4, 4, 4), bool)
    truth[1:3, 1:3, 1:3] = True
    assert score_masks(np.zeros_like(truth), truth, (1.0, 1.0, 10.0)) == MaskScores(
        dice=0.0,
        iou=0.0,
        nsd=(0.0, 0.0, 0.0),
        hd95_mm=None,
        assd_mm=None,
        truth_ml=pytest.approx(0.08),
        mask_ml=0.0,
        lesion_recall=0.0,
    )


def test_two_empty_masks_agree():
    empty = np.zeros((4, 4, 4), bool)
    scores = score_masks(empty, empty, (1.0, 1.0, 1.0))
    assert (scores.dice, scores.iou, scores.nsd) == (1.0, 1.0, (1.0, 1.0, 1.0))
    assert scores.hd95_mm is scores.assd_mm is scores.lesion_recall is None


def test_the_tolerances_are_those_that_an_evaluation_records():
    assert TOLERANCES_MM == NSD_TOLERANCES_MM
