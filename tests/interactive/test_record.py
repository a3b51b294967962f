"""The record of a session: what it says, and what is read back."""

import json
import os

import numpy as np
import pytest

from clickvol.errors import ConfigError, OutputError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import AddObject, ClickInteraction, Move, Reset
from clickvol.interactive.record import (
    Outcome,
    RecordHeader,
    SessionRecord,
    find_records,
    read_record,
    scan_hash,
)
from clickvol.io.volume import Volume
from clickvol.prompts.packed_mask import PackedMask

VOLUME = Volume(np.arange(24).reshape(2, 3, 4), VolumeGrid((2, 3, 4), np.eye(4)), "CT")
HEADER = RecordHeader(
    scan_sha256=scan_hash(VOLUME),
    shape_dhw=(2, 3, 4),
    model_id="promise3d-small",
    model_sha256="0" * 64,
    device="cpu",
    precision="float32",
    num_threads=2,
    versions={"clickvol": "0.1.0"},
)
UNDO, REDO = Move(kind="undo"), Move(kind="redo")

# As version 0.1.0 wrote it.
EARLIER = (
    '{"time":"2026-11-21T10:00:00.000+00:00","kind":"clickvol-session","format":1,"scan_sha256":"%s",'
    '"modality":"CT","shape_dhw":[2,3,4],"model_id":"m","model_sha256":"a","device":"cpu",'
    '"precision":"float32","num_threads":2,"versions":{"clickvol":"0.1.0"}}\n'
    '{"time":"2026-11-21T10:00:01.000+00:00","kind":"click","object_id":1,"space":"ijk",'
    '"position":[3.0,2.0,1.0],"positive":true}\n'
    '{"time":"2026-11-21T10:00:02.000+00:00","kind":"answered","mask_sha256":"b","seconds":0.5}\n'
    '{"time":"2026-11-21T10:00:03.000+00:00","kind":"freeze_object","object_id":1,"frozen":true}\n'
    '{"time":"2026-11-21T10:00:04.000+00:00","kind":"add_object","name":"node"}\n'
    '{"time":"2026-11-21T10:00:05.000+00:00","kind":"click","object_id":2,"space":"ras",'
    '"position":[0.0,0.0,0.0],"positive":true}\n'
    '{"time":"2026-11-21T10:00:06.000+00:00","kind":"cancelled"}\n'
    '{"time":"2026-11-21T10:00:07.000+00:00","kind":"undo"}\n'
)


def click(i):
    return ClickInteraction.at(VoxelPoint.from_ijk(float(i), 0, 0), positive=True)


@pytest.fixture
def write(tmp_path):
    """Write a record, and read it."""

    def written(*lines):
        record = SessionRecord.begin(tmp_path, HEADER)
        for line in lines:
            record.append(line)
        record.close()
        return read_record(record.path)

    return written


def test_what_was_written_is_read(write):
    answered = Outcome(kind="answered", mask_sha256="a", seconds=0.25)
    record = write(click(1), answered, AddObject(name="node"), UNDO, REDO, Reset())
    assert record.header == HEADER
    assert record.steps == (
        (click(1), "a"),
        (AddObject(name="node"), None),
        (UNDO, None),
        (REDO, None),
        (Reset(), None),
    )
    assert record.history.interactions == (click(1), AddObject(name="node"), Reset())
    assert record.num_bytes == record.path.stat().st_size
    lines = [json.loads(line) for line in record.path.read_text().splitlines()]
    assert {key: value for key, value in lines[4].items() if key != "time"} == {"kind": "undo"}


def test_clicks_that_came_to_nothing_do_not_count_and_end_nothing(write):
    cancelled, failed = Outcome(kind="cancelled"), Outcome(kind="failed")
    history = write(click(1), click(2), UNDO, click(3), cancelled, click(4), failed).history
    assert (history.interactions, history.index) == ((click(1), click(2)), 1)


@pytest.mark.parametrize(
    ("steps", "num_clicks"),
    [
        ([click(1), click(2)], 2),
        ([click(1), click(2), UNDO], 1),
        ([click(1), AddObject(), click(2), Reset(), click(3)], 1),
        ([click(1), Reset(), UNDO], 1),
    ],
)
def test_clicks_that_stand(write, steps, num_clicks):
    assert write(*steps).num_clicks == num_clicks


def test_the_answers_say_where_the_session_stood(write):
    hashed = [Outcome(kind="answered", mask_sha256=name) for name in "ab"]
    record = write(click(1), hashed[0], click(2), UNDO, click(3), hashed[1], UNDO)
    assert [(history.current, mask) for history, mask in record.answers()] == [
        ((click(1),), "a"),
        ((click(1), click(2)), None),
        ((click(1), click(3)), "b"),
    ]


def test_a_record_of_version_0_1_0_is_read(tmp_path):
    path = tmp_path / "earlier.jsonl"
    path.write_text(EARLIER % scan_hash(VOLUME))
    record = read_record(path)
    assert [step.kind for step, _ in record.steps] == ["click", "freeze_object", "add_object", "undo"]
    assert record.steps[0][1] == "b"
    assert (len(record.history.interactions), record.history.index) == (3, 2)
    assert (record.num_clicks, record.last_time) == (1, "2026-11-21T10:00:07.000+00:00")


def test_the_records_of_a_scan(tmp_path, write):
    first, _, other = write(click(1)), write(), write(click(1), UNDO)
    deep = tmp_path / "folder" / first.path.name
    deep.parent.mkdir()
    first.path.rename(deep)
    assert [record.path for record in find_records(tmp_path, VOLUME)] == [deep]
    moved = Volume(VOLUME.array, VolumeGrid((2, 3, 4), np.diag([1, 1, 1.001, 1])), "CT")
    assert find_records(tmp_path, moved) == []
    deep.write_text(deep.read_text().replace('click"', 'clock"'))
    assert find_records(tmp_path, VOLUME) == []
    assert other.num_clicks == 0


def test_several_lines_are_written_wholly_or_not_at_all(tmp_path, monkeypatch):
    record = SessionRecord.begin(tmp_path, HEADER)
    record.append(click(1), Reset(), UNDO)
    write = os.write

    def half(descriptor, data):
        write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(OutputError, match="No space left"):
            record.append(click(2), click(3), click(4))
    record.append(REDO)
    record.close()
    assert [step for step, _ in read_record(record.path).steps] == [click(1), Reset(), UNDO, REDO]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([Outcome(kind="answered")], "line 2 answers no click"),
        ([click(1), UNDO, Outcome(kind="answered")], "line 4 answers no click"),
        ([HEADER], "line 2 does not belong there"),
        ([ClickInteraction.at(VoxelPoint(0, 0, 0), positive=True, object_id=2)], "no object 2"),
    ],
)
def test_lines_that_do_not_fit_together(write, lines, words):
    with pytest.raises(ConfigError, match=words):
        write(*lines)


def test_the_hash_of_a_mask_tells_where_it_is():
    masks = [np.zeros((2, 3, 4), dtype=np.uint8) for _ in range(4)]
    masks[1][0, 1, 1] = masks[2][0, 1, 2] = masks[3][0, 1, 1] = 1
    hashes = [PackedMask.of(mask).sha256() for mask in masks]
    assert len(set(hashes[:3])) == 3
    assert hashes[3] == hashes[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no record of a session"),
        ("{}\n", "line 1 is not one"),
        ("not json\n", "line 1 is not one"),
        ('{"kind":"undo","time":"x"}\n', "line 1 does not belong there"),
    ],
)
def test_other_files_are_no_records(tmp_path, text, words):
    path = tmp_path / "record.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_record(path)
