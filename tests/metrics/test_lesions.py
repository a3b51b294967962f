import numpy as np
import pytest

from clickvol.metrics.lesions import lesion_recall


def _three_lesions():
    truth = np.zeros((6, 8, 8), np.uint8)
    truth[0, 0, 0] = truth[1, 1, 1] = 1  # touch by a corner: one lesion of two voxels
    truth[4, 4, 4:7] = 1
    truth[0, 7, 7] = 3
    return truth


def test_each_lesion_that_is_hit_by_a_voxel_counts_once():
    truth, prediction = _three_lesions(), np.zeros((6, 8, 8), bool)
    assert lesion_recall(prediction, truth) == 0.0
    prediction[4, 4, 5] = True
    assert lesion_recall(prediction, truth) == pytest.approx(1 / 3)
    prediction[1, 1, 1] = True
    prediction[4, 4, 6] = True
    assert lesion_recall(prediction, truth) == pytest.approx(2 / 3)
    assert lesion_recall(truth, truth) == 1.0


def test_a_prediction_beside_every_lesion_finds_none():
    truth = _three_lesions()
    assert lesion_recall(truth == 0, truth) == 0.0


def test_smaller_lesions_can_be_left_out():
    truth, prediction = _three_lesions(), np.zeros((6, 8, 8), bool)
    prediction[4, 4, 4] = True
    assert lesion_recall(prediction, truth, smallest_voxels=2) == 0.5
    assert lesion_recall(prediction, truth, smallest_voxels=3) == 1.0
    assert lesion_recall(prediction, truth, smallest_voxels=4) is None


def test_a_truth_without_lesions_has_no_recall():
    assert lesion_recall(np.ones((2, 2, 2)), np.zeros((2, 2, 2))) is None


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        lesion_recall(np.ones((2, 2, 2)), np.ones((2, 2, 3)))
