"""Several masks for one click: offered, chosen in a session, corrected, replayed."""

import dataclasses

import numpy as np
import pytest

from clickvol import Click, InteractiveSession, load_model, segment
from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import ChooseCandidate
from clickvol.interactive.replay import replay_record
from clickvol.patches.field_of_view import FieldOfView
from clickvol.phantoms.phantom import make_phantom
from clickvol.predict.candidate_masks import expected_dice, soft_dice, with_candidates
from clickvol.weights.card import read_card
from clickvol.weights.expected_dice import DiceEstimate, ExpectedDice, MeasuredKind
from reference.segmentations import segmentation_of


@pytest.fixture(scope="module")
def model():
    return load_model("promise3d-lesions")


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, shape_dhw=(12, 32, 32))


def test_the_first_candidate_is_the_mask_and_the_others_differ(model, phantom):
    result = segment(phantom.volume, [Click(phantom.inside)], model)
    assert len(result.candidates) == 4
    np.testing.assert_array_equal(result.candidates[0].mask.array, result.mask.array)
    assert all(0 <= candidate.predicted_dice <= 1 for candidate in result.candidates)
    assert len({candidate.mask.array.tobytes() for candidate in result.candidates}) > 1


def test_candidates_are_read_from_the_map_of_the_mask_which_is_decoded_once(model, phantom):
    decoded = []
    hook = model.network.mask_decoder.join_norm.register_forward_hook(lambda *_: decoded.append(1))
    try:
        result = segment(phantom.volume, [Click(phantom.inside)], model)
    finally:
        hook.remove()
    assert len(result.candidates) == 4
    assert len(decoded) == len(result.fields_of_view)


def test_a_model_without_a_score_head_offers_nothing(phantom):
    plain = load_model("promise3d-small")
    assert segment(phantom.volume, [Click(phantom.inside)], plain).candidates == ()


def test_a_choice_is_kept_corrected_and_replayed(model, phantom, tmp_path):
    session = InteractiveSession(model, log_folder=tmp_path)
    session.set_volume(phantom.volume)
    offered = session.click(phantom.inside).segmentation.candidates
    with pytest.raises(ClickError, match="no candidate 4; the last answer offers 4"):
        session.add(ChooseCandidate(object_id=1, number=4))
    session.add(ChooseCandidate(object_id=1, number=2))
    np.testing.assert_array_equal(session.mask(1).array, offered[2].mask.array)
    session.click(phantom.inside, positive=False)
    corrected = session.mask(1).array
    at = tuple(np.rint(phantom.inside.as_array()).astype(int))
    assert corrected[at] == 0
    session.undo()
    np.testing.assert_array_equal(session.mask(1).array, offered[2].mask.array)
    session.redo()
    path = session.log_path
    session.close()
    replay = replay_record(path, phantom.volume, model)
    assert replay.differing == ()
    np.testing.assert_array_equal(replay.mask(1).array, corrected)


def test_a_model_without_a_score_head_expects_what_its_probability_says_calibrated(model, phantom):
    plain = load_model("promise3d-small")
    curve = ExpectedDice(knots=[(0.0, 0.5), (1.0, 0.9)])
    known = dataclasses.replace(plain, card=plain.card.model_copy(update={"expected_dice": curve}))
    unknown = dataclasses.replace(plain, card=plain.card.model_copy(update={"expected_dice": None}))
    with_it, without = (segment(phantom.volume, [Click(phantom.inside)], one) for one in (known, unknown))
    np.testing.assert_array_equal(with_it.mask.array, without.mask.array)
    said = soft_dice(without.probability_in_box, without.mask.array[without.probability_box.slices] > 0)
    assert (without.expected_dice, with_it.expected_dice) == (None, pytest.approx(0.5 + 0.4 * said))


def test_a_probability_expects_less_of_its_mask_where_it_is_in_doubt():
    probability = np.array([[[1.0, 0.8, 0.6, 0.5, 0.0, 0.0, 0.9]]], np.float32)
    kept = np.array([[[True, True, True, False, False, False, False]]])
    # 2.4 of what is expected to be 2.9 is in the mask of 3; the last voxel is another object's.
    assert soft_dice(probability, kept) == pytest.approx(2 * 2.4 / (2.9 + 3))
    assert soft_dice(probability, kept & False) == soft_dice(probability * 0, kept & False) == 0
    assert soft_dice(kept.astype(np.float32), kept) == 1


def test_modality_and_longest_side_of_a_mask_choose_what_its_dice_was():
    large = MeasuredKind(modality="CT", from_mm=30, shift=0.2, spread=(-0.1, 0.1), patients=6)
    curve = ExpectedDice(knots=[(0.0, 0.0), (1.0, 1.0)], spread=(-0.4, 0.4), kinds=[large])
    card = read_card("promise3d-small").model_copy(update={"expected_dice": curve})
    grid = VolumeGrid.axial((4, 8, 8), (10.0, 2.0, 2.0))
    tall, flat = np.zeros((2, 4, 8, 8), dtype=bool)
    tall[1:4, 2, 2] = True  # 30 mm
    flat[1, :, 2] = True  # 16 mm
    said = [expected_dice(0.5, mask, grid, "CT", card) for mask in (tall, flat)]
    assert [each.dice for each in said] == pytest.approx([0.7, 0.5])
    assert [each.patients for each in said] == [6, 0]
    unmeasured = card.model_copy(update={"expected_dice": None})
    assert expected_dice(0.3, tall, grid, "CT", unmeasured) == DiceEstimate(0.3)


@pytest.mark.parametrize("name", ["promise3d-small", "promise3d-lesions"])
def test_the_expected_dice_is_that_of_the_first_candidate_and_within_its_interval(name, phantom):
    result = segment(phantom.volume, [Click(phantom.inside)], load_model(name))
    low, high = result.expected.interval or (0, 1)
    assert low <= result.expected_dice <= high
    assert [c.predicted_dice for c in result.candidates[:1]] in ([], [result.expected_dice])


def test_candidates_lie_where_the_view_does_and_keep_the_part_that_is_meant():
    centre = WorldPointRAS(10, 20, 30)
    grid, field = VolumeGrid.along_patient((6, 8, 10), 1.0, centre), FieldOfView(centre, 1.0, (6, 8, 10))
    mask = np.zeros((6, 8, 10), np.uint8)
    mask[1:3, 2:4, 3:5] = 1
    probability = np.full((4, 5, 6), 0.25, np.float32)
    probability[:2, :2, 1:3] = 0.75  # the mask, from (1, 2, 2) on
    result = segmentation_of(mask, probability, (1, 2, 2), grid)
    second, nothing = np.zeros((2, 6, 8, 10), np.float32)
    second[1:3, 2:5, 3:6] = 0.9
    kept = second > 0
    second[4, 6:, 7:9] = 0.8  # another object
    inside = [grid.to_world(VoxelPoint(2, 4, 5))]
    several = [(probability, 0.5), (second, 0.25), (nothing, 0.125)]
    small = read_card("promise3d-small")
    unmeasured = small.model_copy(update={"expected_dice": None})
    curve = ExpectedDice(knots=[(0.0, 0.5), (1.0, 0.9)])
    measured = small.model_copy(update={"expected_dice": curve})
    for card, said in ((unmeasured, [0.5, 0.25, 0.125]), (measured, [0.7, 0.6, 0.125])):
        told = with_candidates(result, several, field, inside, card)
        for candidate, expected in zip(told.candidates, (mask, kept, nothing), strict=True):
            np.testing.assert_array_equal(candidate.mask.array, expected)
        assert [candidate.predicted_dice for candidate in told.candidates] == pytest.approx(said)
        assert (told.expected is None) == (card is unmeasured)
    assert told.expected_dice == pytest.approx(0.7)
    # Without a score head the probability speaks: 6 of the 8 voxels, and 28 of the 112 around them.
    alone = with_candidates(result, (), field, inside, measured)
    assert (alone.candidates, alone.expected_dice) == ((), pytest.approx(0.5 + 0.4 * 2 * 6 / (6 + 28 + 8)))
    assert with_candidates(result, (), field, inside, unmeasured) is result
    empty = segmentation_of(mask * 0, probability, (1, 2, 2), grid)
    assert with_candidates(empty, several, field, inside, measured) is empty
