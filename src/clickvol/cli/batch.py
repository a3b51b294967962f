"""`clickvol batch`: a list of scans and clicks in, a mask per row and a table out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from clickvol.batch.run import BatchRequest

_Manifest = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST.csv",
        help=(
            "One row per object: scan, click (several with ; between), output; where needed space, series, "
            "volume, modality, model. Scans are relative to this file."
        ),
    ),
]
_Folder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="What outputs are relative to; also holds records/ and summary.csv.",
    ),
]
_Workers = Annotated[
    int, typer.Option(metavar="N", min=1, help="Processes on this machine; each loads the model.")
]
_ShardText = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only part I of N, from 1/N to N/N; torchrun and --slurm do so too."),
]
_ModelName = Annotated[str | None, typer.Option(metavar="ID|PATH", help="Model of the rows that name none.")]
_Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(help="Where to compute; several CUDA devices are dealt out to the workers."),
]
_Partition = Annotated[
    str | None,
    typer.Option("--slurm", metavar="PARTITION", help="Queue the batch as SLURM jobs, and return."),
]
_Shards = Annotated[int, typer.Option(metavar="N", min=1, help="With --slurm: how many jobs.")]
_SlurmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm-option",
        metavar="NAME=VALUE",
        help="With --slurm: an option of sbatch, such as gres=gpu:1. Repeatable.",
    ),
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


def batch(
    *,
    manifest: _Manifest,
    output: _Folder,
    workers: _Workers = 1,
    shard: _ShardText = None,
    model: _ModelName = None,
    device: _Device = "auto",
    slurm: _Partition = None,
    shards: _Shards = 1,
    slurm_option: _SlurmOptions = None,
    quiet: _Quiet = False,
) -> None:
    """Segment every row of a manifest; rows that are done are not done again.

    Research use only, not a medical device. The exit code is 0 only when every row has its mask.
    """
    from clickvol.batch.launch import parse_shard
    from clickvol.batch.run import BatchRequest

    request = BatchRequest(
        manifest=manifest,
        folder=output,
        shard=None if shard is None else parse_shard(shard),
        workers=workers,
        model=model,
        device=device,
    )
    if slurm is None:
        _run(request, quiet=quiet)
        return
    from clickvol.batch.slurm import SlurmPlan, submit_batch

    plan = SlurmPlan(partition=slurm, shards=shards, options=parse_options(slurm_option or []))
    jobs = submit_batch(request, plan)
    if not quiet:
        typer.echo(f"queued {len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs)}")


def parse_options(texts: list[str]) -> dict[str, str]:
    """Parse NAME=VALUE, each name once.

    Raises:
        ConfigError: for anything else.
    """
    from clickvol.errors import ConfigError

    options: dict[str, str] = {}
    for text in texts:
        name, found, value = text.partition("=")
        name = name.strip().removeprefix("--")
        if not found or not name or name in options:
            raise ConfigError(
                f"cannot use --slurm-option {text!r}; give NAME=VALUE, each name once, such as gres=gpu:1"
            )
        options[name] = value.strip()
    return options


def _run(request: "BatchRequest", *, quiet: bool) -> None:
    from clickvol.batch.run import run_batch
    from clickvol.cli.progress import show_progress

    with show_progress("segmenting", quiet=quiet) as advance:
        outcome = run_batch(
            request,
            on_progress=lambda now: advance(now.done, now.total, f"{now.failed} failed" if now.failed else ""),
        )
    outcome.raise_if_failed()
    if not quiet:
        of_shard = f" of shard {outcome.shard}" if outcome.shard.count > 1 else ""
        typer.echo(f"{outcome.summary}: {outcome.total} rows{of_shard} done, {outcome.earlier} of them earlier")
