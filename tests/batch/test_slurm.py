import builtins
import csv

import pytest

from clickvol.batch.launch import Shard
from clickvol.batch.run import BatchRequest
from clickvol.batch.slurm import ShardJob, SlurmPlan, submit_batch
from clickvol.errors import BatchError, ConfigError
from reference import batch_stand_in

submitit = pytest.importorskip("submitit")


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    environment = batch_stand_in.install(tmp_path / "site")
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, environment[name])


@pytest.fixture
def request_(tmp_path):
    path = tmp_path / "list.csv"
    rows = [f'{scan},"1,2,3",{scan}.nii.gz' for scan in ("ok-1", "bad-2", "ok-3")]
    path.write_text("\n".join(["scan,click,output", *rows]))
    return BatchRequest(manifest=path, folder=tmp_path / "out", workers=2)


def plan(**changes):
    return SlurmPlan(**({"partition": "gpu", "shards": 2, "options": {}} | changes))


def test_what_is_asked_of_slurm(request_, tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "sbatch"):
        (programs / name).write_text("#!/bin/sh\necho Submitted batch job 12\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    jobs = submit_batch(request_, plan(options={"gres": "gpu:1", "mem": "16G"}))
    assert [job.job_id for job in jobs] == ["12_0", "12_1"]
    (script,) = (tmp_path / "out/slurm").glob("*_submission.sh")
    lines = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    for option in (
        "--partition=gpu", "--gres=gpu:1", "--mem=16G", "--cpus-per-task=2", "--time=1440",
        "--job-name=clickvol", "--array=0-1%2",
    ):  # fmt: skip
        assert f"#SBATCH {option}" in lines
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="SLURM is not on this machine"):
        submit_batch(request_, plan())


def test_jobs_on_this_machine_do_all_shards(request_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = BatchRequest(manifest=request_.manifest.relative_to(tmp_path), folder=request_.folder)
    jobs = submit_batch(relative, plan(cluster="local"))
    assert jobs[0].exception() is None
    assert jobs[0].result() == 2
    with pytest.raises(submitit.core.utils.FailedJobError, match="1 of 1 rows failed"):
        jobs[1].result()
    with (tmp_path / "out/summary.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "failed", "done"]


def test_a_job_that_is_stopped_is_queued_again_as_it_was(request_):
    job = ShardJob(request_)
    again = job.checkpoint()
    assert (again.function, again.args, again.kwargs) == (job, (), {})


def test_a_job_with_a_failed_row_fails(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('scan,click,output\ns,"1,2",m.nii.gz\n')
    with pytest.raises(BatchError, match="1 of 1 rows failed"):
        ShardJob(BatchRequest(manifest=path, folder=tmp_path / "out"))()


def test_mistakes_are_told_before_anything_is_queued(request_, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="0 shards hold no row"):
        plan(shards=0)
    sharded = BatchRequest(manifest=request_.manifest, folder=request_.folder, shard=Shard(number=1, count=2))
    with pytest.raises(ConfigError, match="makes the shards itself"):
        submit_batch(sharded, plan(cluster="debug"))
    missing = BatchRequest(manifest=tmp_path / "none.csv", folder=request_.folder)
    with pytest.raises(ConfigError, match="cannot read the manifest"):
        submit_batch(missing, plan(cluster="debug"))
    real = builtins.__import__

    def without_submitit(name, *rest, **named):
        if name == "submitit":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_submitit)
    with pytest.raises(ConfigError, match=r'pip install "clickvol\[slurm\]"'):
        submit_batch(request_, plan())
    assert not request_.folder.exists()
