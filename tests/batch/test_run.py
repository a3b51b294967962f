import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clickvol.batch.launch import Shard
from clickvol.batch.run import BatchOutcome, BatchProgress, BatchRequest, run_batch
from clickvol.errors import BatchError, ConfigError, OutputError
from reference import batch_stand_in


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    """Let the processes of a batch answer without a network."""
    environment = batch_stand_in.install(tmp_path / "site")
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, environment[name])


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
    return [scan for scan, _, _ in batch_stand_in.calls(folder)]


def test_one_bad_row_never_stops_the_rest(manifest, tmp_path):
    path = manifest("ok-1", "bad-2", "odd-3", "crash-4", "ok-5")
    path.write_text(path.read_text() + 'ok-6,"1,2",m6.nii.gz\nok-7,"1,2,3",m7.nii.gz\n')
    seen = []
    outcome = run_batch(request_of(path, device="cpu"), on_progress=seen.append)
    assert outcome == BatchOutcome(
        shard=Shard(), total=7, earlier=0, failed=4, summary=tmp_path / "out/summary.csv"
    )
    rows = summary(tmp_path / "out")
    assert [status for status, _ in rows] == [
        "done", "failed", "failed", "failed", "done", "failed", "done",
    ]  # fmt: skip
    errors = [error for _, error in rows if error]
    assert errors[0] == "the click is bad"
    assert errors[1] == "unexpected KeyError: 'odd'"
    assert errors[2].startswith("the process died while it worked on this row")
    assert errors[3].startswith("cannot read the click")
    # The row that cannot be used comes first, and asks nobody.
    assert seen[0] == BatchProgress(done=0, total=7, failed=0)
    assert seen[-1] == BatchProgress(done=7, total=7, failed=4)
    assert [now.done for now in seen] == list(range(8))
    masks = sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz"))
    assert masks == ["m1.nii.gz", "m5.nii.gz", "m7.nii.gz"]
    # One process did all rows until it died.
    processes = [process for _, process, _ in batch_stand_in.calls(tmp_path / "out")]
    assert len(set(processes[:4])) == 1
    assert len(set(processes)) == 2
    with pytest.raises(BatchError, match=r"^4 of 7 rows failed; .*out/summary\.csv says why"):
        outcome.raise_if_failed()


def test_what_is_done_is_not_done_again_and_what_failed_is(manifest, tmp_path):
    path, out = manifest("ok-1", "bad-2", "ok-3"), tmp_path / "out"
    assert run_batch(request_of(path)).failed == 1
    again = run_batch(request_of(path))
    assert (again.earlier, again.failed) == (2, 1)
    assert scans_asked(out) == ["ok-1", "bad-2", "ok-3", "bad-2"]
    manifest("ok-1", "ok-2", "ok-3")
    (out / "m3.nii.gz").unlink()
    mended = run_batch(request_of(path))
    assert (mended.earlier, mended.failed) == (1, 0)
    mended.raise_if_failed()
    assert scans_asked(out)[4:] == ["ok-2", "ok-3"]
    # Nothing is left to do: no process is started, and the table is the same.
    table = (out / "summary.csv").read_bytes()
    assert run_batch(request_of(path)).earlier == 3
    assert len(scans_asked(out)) == 6
    assert (out / "summary.csv").read_bytes() == table


def test_several_workers_do_every_row_once(manifest, tmp_path):
    path = manifest(*(f"ok-{n}" for n in range(5)))
    outcome = run_batch(request_of(path, workers=2))
    assert (outcome.total, outcome.failed) == (5, 0)
    assert sorted(scans_asked(tmp_path / "out")) == [f"ok-{n}" for n in range(5)]
    processes = {process for _, process, _ in batch_stand_in.calls(tmp_path / "out")}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes


def test_shards_share_the_rows_and_the_last_one_completes_the_table(manifest, tmp_path):
    path, out = manifest("ok-1", "bad-2", "ok-3"), tmp_path / "out"
    second = run_batch(request_of(path, shard=Shard(number=2, count=2)))
    assert (second.total, second.failed) == (1, 1)
    assert [status for status, _ in summary(out)] == ["open", "failed", "open"]
    first = run_batch(request_of(path, shard=Shard(number=1, count=2)))
    assert (first.total, first.failed) == (2, 0)
    first.raise_if_failed()
    assert [status for status, _ in summary(out)] == ["done", "failed", "done"]


def test_one_shard_is_done_by_one_process(manifest, tmp_path):
    path = manifest("ok-1")
    inner = []

    def try_another(_now):
        inner.append(True)
        with pytest.raises(ConfigError, match=r"another process is working on shard 1/1 in .*out"):
            run_batch(request_of(path))
        other = run_batch(request_of(path, shard=Shard(number=2, count=2)))
        assert other.total == 0

    run_batch(request_of(path), on_progress=try_another)
    assert inner


def test_a_folder_that_cannot_be_written(manifest, tmp_path):
    path = manifest("ok-1")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot write to"):
        run_batch(request_of(path))
    with pytest.raises(ConfigError, match="0 workers do nothing"):
        request_of(path, workers=0)


# A shell without job control has its background jobs ignore Ctrl-C, and so would this process.
COMMAND = """
import signal, sys
from clickvol.cli.app import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


def begin(path, *words):
    """Start the command in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "batch", path, "-o", path.parent / "out", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def is_alive(process):
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who is alive")
@pytest.mark.parametrize(("how", "code"), [("Ctrl-C", 130), ("kill -9", -signal.SIGKILL)])
def test_a_stop_loses_nothing_and_leaves_nobody_behind(manifest, tmp_path, how, code):
    path, out = manifest("ok-1", "slow-2", "ok-3"), tmp_path / "out"
    command = begin(path)
    wait_for(lambda: list(out.glob(".clickvol-*")))  # slow-2 is being written
    wait_for(lambda: list(out.glob("records/*.json")))  # and ok-1 is written down
    if how == "Ctrl-C":
        os.killpg(command.pid, signal.SIGINT)
    else:
        command.kill()
    printed, complaint = command.communicate(timeout=60)
    assert (command.returncode, printed) == (code, "")
    assert "Traceback" not in complaint
    assert ("interrupted" in complaint) == (how == "Ctrl-C")
    (worker,) = {int(process) for _, process, _ in batch_stand_in.calls(out)}
    wait_for(lambda: not is_alive(worker), seconds=15)
    assert sorted(p.name for p in out.glob("*.nii.gz")) == ["m1.nii.gz"]
    assert sorted(p.name for p in (out / "records").glob("*.json")) == ["000001.json"]
    assert list(out.glob(".clickvol-*")) == []
    manifest("ok-1", "ok-2", "ok-3")
    again = run_batch(request_of(path))
    assert (again.earlier, again.failed) == (1, 0)
    assert scans_asked(out) == ["ok-1", "slow-2", "ok-2", "ok-3"]


def test_what_a_killed_worker_left_half_written_is_removed(manifest, tmp_path):
    path, out = manifest("ok-1"), tmp_path / "out"
    (out / "records").mkdir(parents=True)
    for place in (out / ".clickvol-0a.nii.gz", out / "records/.clickvol-0b.json"):
        place.write_bytes(b"half")
    run_batch(request_of(path, shard=Shard(number=2, count=2)))  # others may be writing
    assert (out / ".clickvol-0a.nii.gz").exists()
    run_batch(request_of(path))
    assert list(out.rglob(".clickvol-*")) == []
