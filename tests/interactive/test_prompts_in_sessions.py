"""Lines, boxes, drawings, brush edits in a session: masks, undo, records and their replay."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clickvol import InteractiveSession, segment
from clickvol.errors import ClickError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.interactive.interactions import (
    BrushEdit,
    ChooseCandidate,
    DrawnVoxels,
    EditPrompt,
    MaskOperation,
    interaction_of,
)
from clickvol.interactive.record import read_record
from clickvol.interactive.replay import replay_record
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.phantoms.phantom import make_phantom
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Scribble
from reference.random_models import random_model

SHAPE = (12, 24, 24)
AREA = np.zeros(SHAPE, dtype=bool)
AREA[6, 8:16, 8:16] = True
PROMPTS = (
    Line(VoxelPoint(6, 12, 6), VoxelPoint(6, 12, 18)),
    Box.of(VoxelBox.of((3, 6, 6), (9, 18, 18))),
    Lasso(PackedMask.of(AREA)),
    Scribble(PackedMask.of(AREA), foreground=False),
    GivenMask(PackedMask.of(AREA)),
    Click(VoxelPoint(6, 12, 19)),
)


@pytest.fixture(scope="module")
def model():
    return random_model(promise3d_recipe("clickvol", "tiny"))


@pytest.fixture(scope="module")
def volume():
    return make_phantom(3, shape_dhw=SHAPE).volume


@pytest.fixture
def session(model, volume, tmp_path):
    session = InteractiveSession(model, log_folder=tmp_path)
    session.set_volume(volume)
    yield session
    session.close()


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: type(prompt).__name__)
def test_a_prompt_is_kept_as_it_was_given(prompt):
    interaction = interaction_of(prompt, object_id=3)
    again = type(interaction).model_validate_json(interaction.model_dump_json())
    assert (again.prompt, again.object_id) == (prompt, 3)


def test_a_session_answers_as_segment_does(session, model, volume):
    for number, prompt in enumerate(PROMPTS[:4], start=1):
        answer = session.add(interaction_of(prompt))
        expected = segment(volume, PROMPTS[:number], model).mask.array
        np.testing.assert_array_equal(session.mask(1).array, expected)
        assert answer.num_voxels == np.count_nonzero(expected)


def test_a_given_mask_is_the_answer_and_begins_anew(session):
    session.click(VoxelPoint(6, 12, 12))
    session.add(interaction_of(GivenMask(PackedMask.of(AREA))))
    np.testing.assert_array_equal(session.mask(1).array, AREA)
    assert [type(p) for p in session.objects[0].prompts] == [GivenMask]
    session.undo()
    assert not np.array_equal(session.mask(1).array, AREA)


def test_a_brush_changes_what_was_painted_and_later_answers_keep_it(session):
    painted = np.zeros(SHAPE, dtype=bool)
    painted[6, 11:14, 11:14] = True
    session.click(VoxelPoint(6, 12, 12))
    before = session.mask(1).array.astype(bool)
    session.add(BrushEdit.of(painted, added=False))
    np.testing.assert_array_equal(session.mask(1).array, before & ~painted)
    session.click(VoxelPoint(6, 12, 19), positive=False)
    assert not session.mask(1).array[painted].any()
    corner = np.zeros(SHAPE, dtype=bool)
    corner[0, 0, 0] = True
    session.add(BrushEdit.of(corner, added=True))
    assert session.mask(1).array[0, 0, 0]
    for _ in range(3):
        session.undo()
    np.testing.assert_array_equal(session.mask(1).array, before)
    for _ in range(3):
        session.redo()
    assert session.mask(1).array[0, 0, 0]


def test_a_brush_alone_makes_an_object(session):
    session.add(BrushEdit.of(AREA, added=True))
    np.testing.assert_array_equal(session.mask(1).array, AREA)


def test_a_record_replays_to_the_same_masks(session, model, volume):
    for prompt in PROMPTS:
        session.add(interaction_of(prompt))
    session.add(BrushEdit.of(AREA, added=False))
    expected, path = session.mask(1).array, session.log_path
    session.close()
    replay = replay_record(path, volume, model)
    assert (replay.num_answers, replay.differing, replay.conditions) == (7, (), ())
    np.testing.assert_array_equal(replay.mask(1).array, expected)
    assert read_record(path).num_clicks == 2


def test_a_record_is_answered_in_its_own_number_format(model, volume, tmp_path):
    """The format of a CPU is measured, so another machine, or an emptied cache, may choose another."""
    other = replace(model, precision=torch.bfloat16 if model.precision == torch.float32 else torch.float32)
    session = InteractiveSession(other, log_folder=tmp_path)
    session.set_volume(volume)
    session.click(VoxelPoint(6, 12, 12))
    path = session.log_path
    session.close()
    replay = replay_record(path, volume, model)
    assert (replay.num_answers, replay.differing, replay.conditions) == (1, (), ())


@pytest.mark.parametrize(
    ("interaction", "words"),
    [
        (interaction_of(Line(VoxelPoint(6, 12, 6), VoxelPoint(6, 12, 6))), "no length"),
        (interaction_of(Box(VoxelPoint(60, 0, 0), VoxelPoint(70, 3, 3))), "outside the scan"),
        (BrushEdit.of(np.ones((40, 2, 2)), added=True), "draw on this scan"),
        (ChooseCandidate(object_id=1, number=0), "no answer to choose"),
        (interaction_of(Scribble(PackedMask.of(AREA), foreground=False)), "no click inside"),
    ],
)
def test_a_refused_interaction_leaves_the_session_and_its_record(session, interaction, words):
    with pytest.raises(ClickError, match=words):
        session.add(interaction)
    assert (session.history.interactions, session.log_path) == ((), None)


@pytest.mark.parametrize(
    "fields",
    [
        {"start_dhw": (0, 0, 0), "shape_dhw": (2, 2, 2), "bits": "not base64!"},
        {"start_dhw": (0, 0, 0), "shape_dhw": (9, 9, 9), "bits": DrawnVoxels.of(PackedMask.of(AREA)).bits},
        {"start_dhw": (-1, 0, 0), "shape_dhw": (1, 8, 8), "bits": DrawnVoxels.of(PackedMask.of(AREA)).bits},
    ],
)
def test_damaged_drawings_are_refused(fields):
    with pytest.raises(ValueError, match="drawing"):
        DrawnVoxels(**fields)


CLICK, OTHER, BACKGROUND = (
    interaction_of(Click(VoxelPoint(6, 12, 12))),
    interaction_of(Click(VoxelPoint(7, 14, 10))),
    interaction_of(Click(VoxelPoint(6, 12, 19), foreground=False)),
)


def masks_after(session, *interactions):
    """Return the mask of object 1 after interactions in a session begun anew."""
    session.reset()
    for interaction in interactions:
        session.add(interaction)
    return session.mask(1).array


def test_a_removed_or_moved_click_gives_the_mask_without_it_or_with_it_elsewhere(session):
    alone, both = masks_after(session, CLICK), masks_after(session, CLICK, BACKGROUND)
    elsewhere = masks_after(session, OTHER, BACKGROUND)
    masks_after(session, CLICK, BACKGROUND)
    assert session.objects[0].prompted_at == (0, 1)
    session.add(EditPrompt(object_id=1, place=1))
    np.testing.assert_array_equal(session.mask(1).array, alone)
    session.undo()
    np.testing.assert_array_equal(session.mask(1).array, both)
    session.add(EditPrompt(object_id=1, place=0, by=OTHER))
    np.testing.assert_array_equal(session.mask(1).array, elsewhere)
    assert session.objects[0].prompts == (OTHER.prompt, BACKGROUND.prompt)
    # Moved again, by the same place; and all of it can be undone.
    session.add(EditPrompt(object_id=1, place=0, by=CLICK))
    np.testing.assert_array_equal(session.mask(1).array, both)


def test_the_last_click_removed_leaves_what_was_painted(session):
    session.add(CLICK)
    session.add(BrushEdit.of(AREA, added=True))
    session.add(EditPrompt(object_id=1, place=0))
    np.testing.assert_array_equal(session.mask(1).array, AREA)
    assert session.objects[0].prompts == ()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (EditPrompt(object_id=1, place=2), "no prompt 2"),
        (EditPrompt(object_id=1, place=0), "no click inside"),
        (EditPrompt(object_id=1, place=0, by=interaction_of(Click(VoxelPoint(99, 0, 0)))), "outside"),
    ],
)
def test_edits_that_do_not_fit_are_refused(session, edit, words):
    before = masks_after(session, CLICK, BACKGROUND)
    with pytest.raises(ClickError, match=words):
        session.add(edit)
    np.testing.assert_array_equal(session.mask(1).array, before)
    session.freeze_object(1)
    with pytest.raises(ClickError, match="frozen"):
        session.add(EditPrompt(object_id=1, place=1))


def test_an_edit_leaves_other_objects_alone(session):
    session.add(CLICK)
    second = session.add_object()
    session.add(interaction_of(Click(VoxelPoint(6, 12, 6)), object_id=second))
    other = session.mask(second).array
    session.add(EditPrompt(object_id=1, place=0, by=OTHER))
    np.testing.assert_array_equal(session.mask(second).array, other)
    assert not (session.mask(1).array & other).any()


def test_operations_stay_when_a_later_click_is_answered(session):
    plain, both = masks_after(session, CLICK), masks_after(session, CLICK, BACKGROUND)
    grow = MaskOperation(object_id=1, operation="grow", mm=4)
    grown = masks_after(session, CLICK, grow)
    assert grown.sum() > plain.sum()
    assert (grown >= plain).all()
    later = masks_after(session, CLICK, grow, BACKGROUND)
    assert (later >= both).all()
    assert later.sum() > both.sum()
    session.undo()
    session.undo()
    np.testing.assert_array_equal(session.mask(1).array, plain)


def test_edits_and_operations_replay_and_are_copied_to_another_session(session, model, volume, tmp_path):
    session.add(OTHER)
    session.reset()
    masks_after(session, CLICK, BACKGROUND, MaskOperation(object_id=1, operation="grow", mm=3))
    session.add(EditPrompt(object_id=1, place=1))
    session.add(MaskOperation(object_id=1, operation="keep_largest"))
    expected, path = session.mask(1).array, session.log_path
    session.close()
    replay = replay_record(path, volume, model)
    assert (replay.num_answers, replay.differing) == (6, ())
    np.testing.assert_array_equal(replay.mask(1).array, expected)
    other = InteractiveSession(model, log_folder=tmp_path / "other")
    other.set_volume(volume)
    other.add(BACKGROUND.model_copy(update={"positive": True}))
    other.insert(read_record(path))
    np.testing.assert_array_equal(other.mask(1).array, expected)
    other.close()


@pytest.mark.parametrize(
    ("operation", "mm"), [("grow", 0.0), ("smooth", 51.0), ("shrink", -1.0), ("keep_largest", 2.0)]
)
def test_an_operation_with_a_distance_that_it_has_not_is_refused(operation, mm):
    with pytest.raises(ValueError, match="mm"):
        MaskOperation(object_id=1, operation=operation, mm=mm)


def test_a_prompt_cannot_be_replaced_by_one_on_another_object():
    with pytest.raises(ValueError, match="same object"):
        EditPrompt(object_id=2, place=0, by=CLICK)
