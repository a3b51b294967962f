"""Several objects on one scan, undo, redo and the log."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from clickvol import Click, InteractiveSession, load_model, segment
from clickvol.errors import CancelledError, ClickError, ConfigError, OutputError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.interactive.record import find_records, read_record
from clickvol.phantoms.phantom import make_phantom
from clickvol.prompts.packed_mask import PackedMask
from reference.forked_program import ForkedProgram
from reference.killed_session import click_and_be_killed, model_and_phantom

METHODS = 15


@pytest.fixture(scope="module")
def model():
    return model_and_phantom()[0]


@pytest.fixture(scope="module")
def phantom():
    return model_and_phantom()[1]


@pytest.fixture
def session(phantom, model, tmp_path):
    session = InteractiveSession(model, log_folder=tmp_path)
    session.set_volume(phantom.volume)
    yield session
    session.close()


def beside(phantom, dh=0, dw=0):
    return VoxelPoint(phantom.inside.d, phantom.inside.h + dh, phantom.inside.w + dw)


def test_there_are_few_methods():
    methods = [
        name for name, value in vars(InteractiveSession).items() if callable(value) and not name.startswith("_")
    ]
    assert len(methods) <= METHODS


def test_clicks_give_what_segment_gives(phantom):
    model = load_model(device="cpu")
    session = InteractiveSession(model)
    session.set_volume(phantom.volume)
    answer = session.click(phantom.inside)
    session.click(beside(phantom, dh=12), positive=False)
    clicks = [Click(phantom.inside), Click(beside(phantom, dh=12), foreground=False)]
    first, both = segment(phantom.volume, clicks[:1], model), segment(phantom.volume, clicks, model)
    assert answer.num_voxels == first.mask.num_voxels
    assert answer.volume_ml == first.mask.volume_ml
    np.testing.assert_array_equal(session.mask(1).array, both.mask.array)
    np.testing.assert_array_equal(session.probability(1), both.probability())
    assert session.objects[0].clicks == tuple(clicks)


def test_undo_and_redo_go_back_and_forth_to_the_bit(phantom, session):
    masks = [session.mask(1).array]
    for step in (0, 2, -2):
        session.click(beside(phantom, dw=step))
        masks.append(session.mask(1).array)
    for mask in masks[-2::-1]:
        assert session.undo()
        np.testing.assert_array_equal(session.mask(1).array, mask)
    assert not session.undo()
    assert not session.can_undo
    for mask in masks[1:]:
        assert session.redo()
        np.testing.assert_array_equal(session.mask(1).array, mask)
    assert not session.redo()


def test_the_probability_is_that_of_the_mask_after_undo(phantom, session):
    session.click(phantom.inside)
    before = session.probability(1)
    session.click(beside(phantom, dh=12), positive=False)
    assert (session.probability(1) != before).any()
    session.undo()
    np.testing.assert_array_equal(session.probability(1), before)
    session.undo()
    assert not session.probability(1).any()


def test_a_new_click_after_undo_ends_what_was_undone(phantom, session):
    session.click(phantom.inside)
    session.undo()
    session.click(beside(phantom, dw=1))
    assert not session.can_redo
    assert session.objects[0].clicks == (Click(beside(phantom, dw=1)),)


def test_reset_can_be_undone(phantom, session):
    session.click(phantom.inside)
    mask = session.mask(1).array
    session.add_object("node")
    session.reset()
    assert len(session.objects) == 1
    assert not session.mask().array.any()
    session.undo()
    assert [o.name for o in session.objects] == ["", "node"]
    np.testing.assert_array_equal(session.mask(1).array, mask)


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (VoxelPoint(0, 0, 1000), {}),
        (WorldPointRAS(1e6, 0, 0), {}),
        (VoxelPoint(float("nan"), 0, 0), {}),
        (VoxelPoint(1, 1, 1), {"positive": False, "object_id": 2}),
        (VoxelPoint(1, 1, 1), {"object_id": 3}),
        (VoxelPoint(1, 1, 1), {"object_id": 0}),
    ],
)
def test_a_refused_click_changes_nothing(phantom, session, point, words):
    session.click(phantom.inside)
    session.add_object()
    before, log = session.objects, session.log_path.read_text()
    with pytest.raises(ClickError):
        session.click(point, **words)
    assert session.objects == before
    assert session.log_path.read_text() == log


def test_a_cancelled_click_changes_nothing_and_is_not_repeated(phantom, model, session):
    session.click(phantom.inside)
    before = session.objects
    with pytest.raises(CancelledError):
        session.click(beside(phantom, dw=2), cancelled=lambda: True)
    assert session.objects == before
    session.close()
    again = InteractiveSession(model)
    again.set_volume(phantom.volume)
    again.resume(find_log(session, phantom))
    assert again.objects == before
    again.close()


def find_log(session, phantom):
    (summary,) = find_records(session._log_folder, phantom.volume)
    return summary.path


def test_frozen_objects_are_left_alone(phantom, session):
    session.click(phantom.inside)
    frozen = session.mask(1).array.astype(bool)
    session.freeze_object(1)
    with pytest.raises(ClickError, match="frozen"):
        session.click(phantom.inside)
    second = session.add_object("beside")
    session.click(beside(phantom, dw=2), object_id=second)
    assert not session.mask(second).array[frozen].any()
    assert not session.probability(second)[frozen].any()
    np.testing.assert_array_equal(session.mask(1).array, frozen)
    np.testing.assert_array_equal(session.mask().array == 1, frozen)
    session.freeze_object(1, frozen=False)
    session.click(phantom.inside)
    assert len(session.objects[0].clicks) == 2


def test_an_object_yields_or_takes_and_freezing_keeps_what_it_has(phantom, session):
    session.click(phantom.inside)
    same = session.mask(1).array == 1
    second = session.add_object()
    session.click(phantom.inside, object_id=second)
    assert not (session.mask(second).array[same]).any()
    assert (session.mask().array[same] == 1).all()
    session.undo()
    session.click(phantom.inside, object_id=second, overlap="take")
    np.testing.assert_array_equal(session.mask(second).array == 1, same)
    assert session.objects[0].num_voxels == 0
    session.freeze_object(1)
    session.freeze_object(1, frozen=False)
    assert (session.mask().array[same] == second).all()
    assert [mask.num_voxels for mask in session.shown_masks.values()] == [0, int(same.sum())]


def test_a_log_gives_the_same_masks_again(phantom, model, session, tmp_path):
    session.click(phantom.inside)
    session.click(phantom.volume.grid.to_world(beside(phantom, dh=12)), positive=False)
    session.undo()
    session.freeze_object(1)
    session.add_object("node")
    session.click(beside(phantom, dw=3), object_id=2)
    session.click(beside(phantom, dw=4), object_id=2)
    session.undo()
    expected = [session.mask(n).array for n in (None, 1, 2)]
    objects, log = session.objects, session.log_path
    session.close()

    (summary,) = find_records(tmp_path, phantom.volume)
    assert (summary.path, summary.num_clicks) == (log, 2)
    again = InteractiveSession(model, log_folder=tmp_path)
    again.set_volume(phantom.volume)
    again.resume(log)
    for wanted, number in zip(expected, (None, 1, 2), strict=True):
        np.testing.assert_array_equal(again.mask(number).array, wanted)
    assert again.objects == objects
    # It goes on in the same log: redo, then one more.
    assert again.redo()
    again.close()
    assert read_record(log).steps[-1][0].kind == "redo"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_log_says_what_every_answer_was_and_nothing_of_the_file(phantom, session):
    session.click(phantom.inside)
    lines = [json.loads(line) for line in session.log_path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["clickvol-session", "click", "answered"]
    assert lines[1]["position"] == list(phantom.inside.to_ijk())
    assert lines[2]["mask_sha256"] == PackedMask.of(session.mask(1).array).sha256()
    assert set(lines[0]["versions"]) == {"clickvol", "torch", "numpy", "python"}
    assert session.log_path.stat().st_mode & 0o077 == 0


def test_the_interactions_of_another_session_are_copied(phantom, model, session, tmp_path):
    """Nothing of either is lost: the other goes on, and undo brings back what was here."""
    session.click(phantom.inside)
    session.add_object("node")
    session.undo()
    other = InteractiveSession(model, log_folder=tmp_path / "other")
    other.set_volume(phantom.volume)
    other.add_object("mine")
    other.insert(read_record(session.log_path))
    kinds = [step.kind for step, _ in read_record(other.log_path).steps]
    assert kinds == ["add_object", "reset", "click", "add_object", "undo"]
    assert other.objects == session.objects
    assert other.redo()
    assert [known.name for known in other.objects] == ["", "node"]
    for _ in range(3):
        assert other.undo()
    assert [known.name for known in other.objects] == ["", "mine"]
    assert read_record(session.log_path).num_clicks == 1
    other.close()
    stranger = InteractiveSession(model)
    stranger.set_volume(make_phantom(4, shape_dhw=(24, 48, 48)).volume)
    with pytest.raises(ConfigError, match="another scan"):
        stranger.insert(read_record(session.log_path))


def test_a_log_of_another_scan_or_model_is_refused(phantom, model, session, tmp_path):
    session.click(phantom.inside)
    log = session.log_path
    session.close()
    other = InteractiveSession(model)
    other.set_volume(make_phantom(4, shape_dhw=(24, 48, 48)).volume)
    with pytest.raises(ConfigError, match="another scan"):
        other.resume(log)
    log.write_text(log.read_text().replace(model.card.sha256, "0" * 64))
    again = InteractiveSession(model)
    again.set_volume(phantom.volume)
    with pytest.raises(ConfigError, match="other weights"):
        again.resume(log)


def test_a_log_in_use_is_refused(phantom, model, session):
    session.click(phantom.inside)
    other = InteractiveSession(model)
    other.set_volume(phantom.volume)
    with pytest.raises(ConfigError, match="in use"):
        other.resume(session.log_path)


def test_a_full_disk_refuses_the_click_and_keeps_the_log(phantom, session, monkeypatch):
    session.click(phantom.inside)
    before = session.log_path.read_bytes()
    write = os.write

    def half(descriptor, data):
        write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OutputError, match="No space left"):
        session.click(beside(phantom, dw=1))
    monkeypatch.undo()
    assert session.log_path.read_bytes() == before
    assert len(session.objects[0].clicks) == 1
    session.click(beside(phantom, dw=1))
    assert len(read_record(session.log_path).steps) == 2


def test_a_killed_process_loses_no_click(phantom, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = ForkedProgram([], prepare=click_and_be_killed)
    program.communicate()
    assert program.poll() == -signal.SIGKILL
    (summary,) = find_records(tmp_path, phantom.volume)
    assert summary.num_clicks == 2
    # A line that was cut off by the kill is left out.
    with Path(summary.path).open("a") as file:
        file.write('{"kind":"click","ti')
    session = InteractiveSession(model, log_folder=tmp_path)
    session.set_volume(phantom.volume)
    session.resume(summary.path)
    assert [len(o.clicks) for o in session.objects] == [2]
    expected = segment(phantom.volume, [Click(phantom.inside)] * 2, model)
    np.testing.assert_array_equal(session.mask(1).array, expected.mask.array)
    session.undo()
    session.close()
    assert [step.kind for step, _ in read_record(summary.path).steps] == [
        "click",
        "click",
        "undo",
    ]


def test_a_session_without_a_scan_says_so(model):
    session = InteractiveSession(model)
    with pytest.raises(ConfigError, match="set_volume"):
        session.mask()
    with pytest.raises(ConfigError, match="set_volume"):
        session.click(VoxelPoint(0, 0, 0))
