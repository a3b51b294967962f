import numpy as np
import pytest

from clickvol.metrics.lesions import LesionScores, lesion_scores


def _three_lesions():
    truth = np.zeros((6, 8, 8), np.uint8)
    truth[0, 0, 0] = truth[1, 1, 1] = 1  # touch by a corner: one lesion of two voxels
    truth[4, 4, 4:7] = 1
    truth[0, 7, 7] = 3
    return truth


def test_each_lesion_that_is_hit_by_a_voxel_counts_once():
    truth, prediction = _three_lesions(), np.zeros((6, 8, 8), bool)
    assert lesion_scores(prediction, truth) == LesionScores(recall=0.0, precision=None, f1=0.0, dice=0.0)
    prediction[4, 4, 5] = True
    assert lesion_scores(prediction, truth).recall == pytest.approx(1 / 3)
    prediction[1, 1, 1] = True
    prediction[4, 4, 6] = True
    assert lesion_scores(prediction, truth).recall == pytest.approx(2 / 3)
    assert lesion_scores(truth, truth) == LesionScores(recall=1.0, precision=1.0, f1=1.0, dice=1.0)


def test_parts_beside_every_lesion_are_false():
    truth, prediction = _three_lesions(), np.zeros((6, 8, 8), bool)
    prediction[4, 4, 6:8] = True  # one voxel of the lesion of three, one beside it
    prediction[2, 6, 0] = prediction[5, 0, 7] = True  # two false parts
    scores = lesion_scores(prediction, truth)
    assert (scores.recall, scores.precision) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert scores.f1 == pytest.approx(1 / 3)
    assert scores.dice == pytest.approx(2 / 5 / 3)  # 2 * 1 / (3 + 2), and two lesions missed
    assert lesion_scores(truth == 0, truth).recall == 0.0


def test_two_parts_of_one_lesion_are_both_right_and_one_part_of_two_lesions_counts_for_each():
    truth, prediction = np.zeros((1, 1, 12), bool), np.zeros((1, 1, 12), bool)
    truth[..., 0:5] = prediction[..., 0:2] = prediction[..., 4] = True
    assert lesion_scores(prediction, truth) == LesionScores(recall=1.0, precision=1.0, f1=1.0, dice=0.75)
    truth[...] = prediction[...] = False
    truth[..., 1:3] = truth[..., 5:7] = prediction[..., 1:7] = True
    assert lesion_scores(prediction, truth) == LesionScores(recall=1.0, precision=1.0, f1=1.0, dice=0.5)


def test_f1_lies_between_recall_and_precision():
    truth, prediction = _three_lesions(), np.zeros((6, 8, 8), bool)
    prediction[4, 4, 4:7] = prediction[0, 7, 7] = prediction[2, 6, 0] = prediction[5, 0, 7] = True
    scores = lesion_scores(prediction, truth)
    assert (scores.recall, scores.precision) == (pytest.approx(2 / 3), 0.5)
    assert scores.f1 == pytest.approx(4 / 7)


def test_smaller_components_of_both_can_be_left_out():
    truth, prediction = _three_lesions(), np.zeros((6, 8, 8), bool)
    prediction[4, 4, 4:6] = prediction[0, 0, 7] = True
    assert lesion_scores(prediction, truth, smallest_voxels=1).precision == 0.5
    assert lesion_scores(prediction, truth, smallest_voxels=2) == LesionScores(
        recall=0.5, precision=1.0, f1=pytest.approx(2 / 3), dice=pytest.approx(0.4)
    )
    assert lesion_scores(prediction, truth, smallest_voxels=3).recall == 0.0
    assert lesion_scores(prediction, truth, smallest_voxels=4).recall is None


def test_a_truth_without_lesions_has_only_false_parts():
    nothing, everything = np.zeros((2, 2, 2)), np.ones((2, 2, 2))
    assert lesion_scores(everything, nothing) == LesionScores(recall=None, precision=0.0, f1=0.0, dice=None)
    neither = LesionScores(recall=None, precision=None, f1=None, dice=None)
    assert lesion_scores(nothing, nothing) == neither
    assert lesion_scores(nothing, everything, smallest_voxels=9) == neither


def test_without_lesions_and_parts_nothing_is_said():
    nothing = np.zeros((2, 3, 4), bool)
    assert lesion_scores(nothing, nothing).precision is None


@pytest.mark.parametrize(("shape", "truth_shape"), [((2, 2, 2), (2, 2, 3)), ((2, 2), (2, 2))])
def test_masks_of_other_shapes_are_refused(shape, truth_shape):
    with pytest.raises(ValueError, match="must be equal and of three axes") as refused:
        lesion_scores(np.ones(shape), np.ones(truth_shape))
    assert str(refused.value).startswith(f"the masks have shapes {shape} and {truth_shape}, which")
