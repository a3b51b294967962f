import csv
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from clickvol.batch import run
from clickvol.batch.manifest import BatchRow
from clickvol.batch.run import BatchOutcome, BatchRequest, run_batch, segment_row
from clickvol.errors import BatchError, ConfigError, OutputError
from clickvol.predict.segmentation_request import SegmentationRequest
from clickvol.prompts.click import Click
from clickvol.weights import load
from reference import batch_stand_in
from reference.forked_program import ForkedProgram


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    """Answer without a network, in this process and in others."""
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("PYTHONPATH", batch_stand_in.python_path(tmp_path / "site"))
    monkeypatch.setattr(run, "run_request", batch_stand_in.run_request)


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest of scans by name; row n writes mn.nii.gz."""

    def write(*scans):
        lines = [f'{scan},"1,2,3",m{n}.nii.gz' for n, scan in enumerate(scans, start=1)]
        path = tmp_path / "list.csv"
        path.write_text("\n".join(["scan,click,output", *lines]) + "\n")
        return path

    return write


def request_of(path, **options):
    return BatchRequest(manifest=path, folder=path.parent / "out", **options)


def summary(folder):
    with (folder / "summary.csv").open(newline="") as file:
        return [(row["status"], row["error"]) for row in csv.DictReader(file)]


def scans_asked(folder):
    return [scan for scan, _ in batch_stand_in.calls(folder)]


def test_one_bad_row_never_stops_the_rest(manifest, tmp_path):
    path = manifest("ok-1", "bad-2", "odd-3", "ok-4")
    path.write_text(path.read_text() + 'ok-5,"1,2",m5.nii.gz\nok-6,"1,2,3",m6.nii.gz\n')
    seen = []
    outcome = run_batch(request_of(path, device="cpu"), on_progress=lambda *now: seen.append(now))
    assert outcome == BatchOutcome(total=6, earlier=0, failed=3, summary=tmp_path / "out/summary.csv")
    rows = summary(tmp_path / "out")
    assert [status for status, _ in rows] == ["done", "failed", "failed", "done", "failed", "done"]
    errors = [error for _, error in rows if error]
    assert errors[:2] == ["the click is bad", "unexpected KeyError: 'odd'"]
    assert errors[2].startswith("cannot read the click")
    # The row that cannot be used comes first, and asks nobody.
    assert seen[:2] == [(0, 6, ""), (1, 6, "1 failed")]
    assert seen[-1] == (6, 6, "3 failed")
    assert [done for done, _, _ in seen] == list(range(7))
    masks = sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz"))
    assert masks == ["m1.nii.gz", "m4.nii.gz", "m6.nii.gz"]
    # One worker is this process.
    assert {process for _, process in batch_stand_in.calls(tmp_path / "out")} == {os.getpid()}
    with pytest.raises(BatchError, match=r"^3 of 6 rows failed; .*out/summary\.csv says why"):
        outcome.raise_if_failed()


def test_what_is_done_is_not_done_again_and_what_failed_is(manifest, tmp_path):
    path, out = manifest("ok-1", "bad-2", "ok-3"), tmp_path / "out"
    assert run_batch(request_of(path)).failed == 1
    again = run_batch(request_of(path))
    assert (again.earlier, again.failed) == (2, 1)
    assert scans_asked(out) == ["ok-1", "bad-2", "ok-3", "bad-2"]
    manifest("ok-1", "ok-2", "ok-3")
    (out / "m3.nii.gz").unlink()
    third = run_batch(request_of(path))
    assert (third.earlier, third.failed) == (1, 0)
    third.raise_if_failed()
    assert scans_asked(out)[4:] == ["ok-2", "ok-3"]
    # Nothing is left to do, and the table is the same.
    table = (out / "summary.csv").read_bytes()
    assert run_batch(request_of(path)).earlier == 3
    assert len(scans_asked(out)) == 6
    assert (out / "summary.csv").read_bytes() == table


def test_one_process_at_a_time_works_in_a_folder(manifest, tmp_path):
    path = manifest("ok-1")
    inner = []

    def try_another(*_now):
        inner.append(True)
        with pytest.raises(ConfigError, match=r"another process is working in .*out"):
            run_batch(request_of(path))

    run_batch(request_of(path), on_progress=try_another)
    assert inner


def test_what_cannot_begin_is_refused(manifest, tmp_path):
    path = manifest("ok-1")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot make the folder"):
        run_batch(request_of(path))
    with pytest.raises(ConfigError, match="0 workers do nothing"):
        request_of(path, workers=0)
    with pytest.raises(ConfigError, match="exclude each other"):
        request_of(path, workers=2, scheduler="tcp://127.0.0.1:1")


def begin(path, *words):
    """Start the command in a process group of its own, as a terminal does."""
    words = ["batch", path, "-o", path.parent / "out", *words]
    return ForkedProgram(words, prepare=batch_stand_in.take_part_in_a_group_of_its_own)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def is_alive(process):
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who is alive")
@pytest.mark.parametrize(("how", "workers"), [("Ctrl-C", 1), ("Ctrl-C", 2), ("kill -9", 2)])
def test_a_stop_loses_nothing_and_leaves_nobody_behind(manifest, tmp_path, how, workers):
    path, out = manifest("ok-1", "slow-2", "ok-3"), tmp_path / "out"
    command = begin(path, "--workers", str(workers))
    wait_for(lambda: list(out.glob(".clickvol-*.nii.gz")))  # slow-2 is being written
    wait_for(lambda: list(out.glob("records/[!.]*.json")))  # and another row is written down
    if workers == 2:
        wait_for(lambda: len(list(out.glob("records/[!.]*.json"))) == 2)
    if how == "Ctrl-C":
        os.killpg(command.pid, signal.SIGINT)
    else:
        command.send_signal(signal.SIGKILL)
    printed, complaint = command.communicate(timeout=60)
    assert (command.poll(), printed) == ({"Ctrl-C": 130, "kill -9": -signal.SIGKILL}[how], "")
    assert "Traceback" not in complaint
    assert ("interrupted" in complaint) == (how == "Ctrl-C")
    processes = {process for _, process in batch_stand_in.calls(out)}
    assert (command.pid in processes) == (workers == 1)
    wait_for(lambda: not any(map(is_alive, processes)), seconds=15)
    done = {1: ["m1.nii.gz"], 2: ["m1.nii.gz", "m3.nii.gz"]}[workers]
    assert sorted(p.name for p in out.glob("*.nii.gz") if p.name[0] != ".") == done
    assert len(list((out / "records").glob("[!.]*.json"))) == workers
    manifest("ok-1", "ok-2", "ok-3")
    again = run_batch(request_of(path))
    assert (again.earlier, again.failed) == (workers, 0)
    assert sorted(p.name for p in out.glob("*.nii.gz")) == ["m1.nii.gz", "m2.nii.gz", "m3.nii.gz"]
    assert list(out.rglob(".clickvol-*")) == []


def test_what_a_killed_worker_left_half_written_is_removed(manifest, tmp_path):
    path, out = manifest("ok-1"), tmp_path / "out"
    (out / "records").mkdir(parents=True)
    for place in (out / ".clickvol-0a.nii.gz", out / "records/.clickvol-0b.json"):
        place.write_bytes(b"half")
    run_batch(request_of(path))
    assert list(out.rglob(".clickvol-*")) == []


def row_in(folder):
    job = SegmentationRequest(
        scan=folder / "ok.nii.gz", clicks=(Click.at((1, 2, 3)),), mask=folder / "deep/er/m.nii.gz", device="cpu"
    )
    return BatchRow(number=7, scan="ok.nii.gz", output="deep/er/m.nii.gz", job=job, key="k")


def test_folders_are_made_inside_the_folder_of_the_batch_only(tmp_path):
    row = row_in(tmp_path)
    with pytest.raises(FileNotFoundError):
        segment_row(row, tmp_path / "other")
    assert segment_row(row, tmp_path).status == "done"
    assert (tmp_path / "deep/er/m.nii.gz").read_bytes() == b"mask"


def test_rows_share_one_model(monkeypatch, tmp_path):
    loaded = []
    monkeypatch.setattr(load, "load_model", lambda name, device: loaded.append((name, device)))

    def load_and_answer(job, load):
        load()
        mask = SimpleNamespace(num_voxels=8, volume_ml=0.12345678)
        segmentation = SimpleNamespace(mask=mask, modality="CT", model_id="tiny")
        return SimpleNamespace(segmentation=segmentation, seconds={"total": 1.23456}, warnings=("a", "b"))

    monkeypatch.setattr(run, "run_request", load_and_answer)
    run._shared_model.cache_clear()
    records = [segment_row(row_in(tmp_path), tmp_path) for _ in range(3)]
    assert loaded == [("promise3d-lesions", "cpu")]
    # A worker of a cluster outlives the command: other weights are loaded anew.
    monkeypatch.setattr(run, "read_card", lambda _model: SimpleNamespace(sha256="other"))
    segment_row(row_in(tmp_path), tmp_path)
    assert len(loaded) == 2
    run._shared_model.cache_clear()
    assert (records[0].volume_ml, records[0].seconds, records[0].warnings) == (0.1235, 1.235, ("a", "b"))
    assert records[0] == records[2]
