import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from clickvol.batch import worker
from clickvol.batch.manifest import BatchRow
from clickvol.batch.records import current_record
from clickvol.batch.worker import WorkerPlace, device_of_slot, run_row
from clickvol.errors import ClickError
from clickvol.predict.segmentation_request import SegmentationRequest
from clickvol.prompts.click import Click
from clickvol.weights import load


@pytest.fixture
def row(tmp_path):
    job = SegmentationRequest(
        scan=tmp_path / "scan.nii.gz",
        clicks=(Click.at((1, 2, 3)),),
        mask=tmp_path / "deep" / "er" / "m.nii.gz",
        device="cpu",
    )
    return BatchRow(number=7, scan="scan.nii.gz", output="deep/er/m.nii.gz", job=job, key="k")


@pytest.fixture
def answer(monkeypatch):
    """Replace the job by a function of the job."""

    def use(function):
        monkeypatch.setattr(worker, "run_request", lambda job, load: function(job))

    return use


def found(job):
    job.mask.write_bytes(b"mask")
    mask = SimpleNamespace(num_voxels=8, volume_ml=0.12345678)
    segmentation = SimpleNamespace(mask=mask, modality="CT", model_id="tiny")
    return SimpleNamespace(segmentation=segmentation, seconds={"total": 1.23456}, warnings=("a", "b"))


def test_a_row_that_is_done_has_a_mask_and_a_record(row, answer, tmp_path):
    answer(found)
    record = run_row(row, WorkerPlace(folder=tmp_path, slot=0))
    written = json.loads((tmp_path / "records/000007.json").read_text())
    assert written.pop("clickvol_version")
    assert written == {
        "row": 7, "key": "k", "status": "done", "scan": "scan.nii.gz",
        "output": "deep/er/m.nii.gz", "model": "tiny", "modality": "CT", "voxels": 8,
        "volume_ml": 0.1235, "seconds": 1.235, "warnings": ["a", "b"], "error": None,
    }  # fmt: skip
    assert current_record(tmp_path, row) == record


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ClickError("the click\n is bad"), "the click is bad"),
        (MemoryError(), "there is not enough memory for this scan; use fewer workers"),
        (ZeroDivisionError("a\nb"), "unexpected ZeroDivisionError: a b"),
    ],
)
def test_whatever_happens_there_is_a_record(row, answer, tmp_path, error, words):
    def fail(_job):
        raise error

    answer(fail)
    record = run_row(row, WorkerPlace(folder=tmp_path, slot=0))
    assert (record.status, record.error, record.voxels) == ("failed", words, None)
    assert current_record(tmp_path, row) == record


def test_a_row_that_cannot_be_used_is_recorded(tmp_path):
    row = BatchRow(number=1, scan="a", output="b", problem="no click")
    assert run_row(row, WorkerPlace(folder=tmp_path, slot=0)).error == "no click"
    assert current_record(tmp_path, row).error == "no click"


def test_a_record_that_cannot_be_written_fails_the_row(row, answer, tmp_path):
    answer(found)
    (tmp_path / "records").write_text("a file in the way")
    record = run_row(row, WorkerPlace(folder=tmp_path, slot=0))
    assert (record.status, record.error.split(":")[0]) == (
        "failed",
        f"cannot make {tmp_path / 'records'}",
    )


def test_folders_are_made_inside_the_folder_of_the_batch_only(row, answer, tmp_path):
    seen = []
    answer(lambda job: seen.append(job.mask.parent.is_dir()) or 1 / 0)
    run_row(row, WorkerPlace(folder=tmp_path, slot=0))
    run_row(row, WorkerPlace(folder=tmp_path / "other", slot=0))
    assert seen == [True, True]
    (tmp_path / "deep/er").rmdir()
    run_row(row, WorkerPlace(folder=tmp_path / "other", slot=0))
    assert seen == [True, True, False]


def test_cuda_devices_are_dealt_out(monkeypatch):
    assert device_of_slot("cpu", 3) == "cpu"
    assert device_of_slot("cuda:1", 3) == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of_slot("auto", 3) == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of_slot("auto", n) for n in range(4)] == ["cuda:0", "cuda:1"] * 2
    assert device_of_slot("cuda", 1) == "cuda:1"


def test_rows_share_one_model_and_it_is_not_loaded_for_nothing(row, monkeypatch, tmp_path):
    loaded = []
    monkeypatch.setattr(load, "load_model", lambda name, device: loaded.append((name, device)))
    worker._shared_model.cache_clear()
    monkeypatch.setattr(worker, "run_request", lambda job, load: found(job) if load() is None else None)
    place = WorkerPlace(folder=tmp_path, slot=0)
    run_row(BatchRow(number=1, scan="a", output="b", problem="no click"), place)
    assert loaded == []
    for _ in range(3):
        assert run_row(row, place).status == "done"
    assert loaded == [("promise3d-small", "cpu")]
    worker._shared_model.cache_clear()


def test_the_folder_may_be_relative(row, answer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer(found)
    assert run_row(row, WorkerPlace(folder=Path(), slot=0)).status == "done"
