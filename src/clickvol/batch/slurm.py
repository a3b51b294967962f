"""A batch on many machines: one SLURM job per shard, through submitit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clickvol.batch.launch import Shard
from clickvol.batch.manifest import read_manifest
from clickvol.batch.run import BatchRequest, run_batch
from clickvol.errors import ConfigError

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

LOGS_NAME = "slurm"

# Not stated by SLURM; submitit's five minutes would end most batches. A job that runs out of time is queued
# again and goes on where it was.
_DEFAULT_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmPlan:
    """How a batch is spread over machines.

    Attributes:
        partition: of the cluster.
        shards: how many jobs.
        options: further options of sbatch by their long names, such as {"gres": "gpu:1", "time": "04:00:00"}.
        cluster: "slurm"; submitit's "local" and "debug" run the jobs on this machine.

    Raises:
        ConfigError: on construction, for no shard.
    """

    partition: str
    shards: int
    options: Mapping[str, str]
    cluster: str = "slurm"

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise ConfigError(f"{self.shards} shards hold no row; give at least 1")


@dataclass(frozen=True)
class ShardJob:
    """One shard, as a job.

    Attributes:
        request: with the shard.
    """

    request: BatchRequest

    def __call__(self) -> int:
        """Do the shard; return how many rows it has.

        Raises:
            BatchError: when a row failed, so that the job counts as failed.
        """
        outcome = run_batch(self.request)
        outcome.raise_if_failed()
        return outcome.total

    def checkpoint(self) -> "DelayedSubmission":
        """Return what submitit is to queue again after a time limit or a preemption: the same shard."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit_batch(request: BatchRequest, plan: SlurmPlan) -> list[Any]:
    """Queue a batch, one job per shard; logs go to the folder `slurm` in that of the batch.

    Args:
        request: without a shard.
        plan: where and in how many jobs.

    Returns:
        submitit's jobs, in the order of the shards.

    Raises:
        ConfigError: when submitit or SLURM is not there, the request has a shard, or the manifest is none.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            'submitit is not installed, which --slurm needs; run: pip install "clickvol[slurm]"'
        ) from error
    if request.shard is not None:
        raise ConfigError(
            f"--slurm makes the shards itself; leave out the shard {request.shard}, and give their number"
        )
    read_manifest(request.manifest, request.folder)  # a mistake is told now, not in n logs
    try:
        executor = submitit.AutoExecutor(request.folder / LOGS_NAME, cluster=plan.cluster)
    except RuntimeError as error:
        raise ConfigError(
            "SLURM is not on this machine (there is no srun); log in to the cluster and try again there"
        ) from error
    executor.update_parameters(
        name="clickvol",
        timeout_min=_DEFAULT_MINUTES,
        cpus_per_task=request.workers,
        slurm_partition=plan.partition,
        slurm_additional_parameters=dict(plan.options),
    )
    # A job starts in another folder than this command.
    placed = replace(
        request, manifest=Path(request.manifest).absolute(), folder=Path(request.folder).absolute()
    )
    jobs = [
        ShardJob(replace(placed, shard=Shard(number=number, count=plan.shards)))
        for number in range(1, plan.shards + 1)
    ]
    with executor.batch():
        return [executor.submit(job) for job in jobs]
