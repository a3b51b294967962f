"""`clickvol batch`: a list of scans and clicks in, a mask per row and a table out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clickvol.cli.options import Quiet, Scheduler, Workers

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
_ModelName = Annotated[str | None, typer.Option(metavar="ID|PATH", help="Model of the rows that name none.")]
_Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(help="Where to compute; several CUDA devices are dealt out to the workers."),
]


def batch(
    *,
    manifest: _Manifest,
    output: _Folder,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    model: _ModelName = None,
    device: _Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Segment every row of a manifest; rows that are done are not done again.

    Research use only, not a medical device. The exit code is 0 only when every row has its mask.
    """
    from clickvol.batch.run import BatchRequest, run_batch
    from clickvol.cli.progress import show_progress

    request = BatchRequest(
        manifest=manifest, folder=output, workers=workers, scheduler=scheduler, model=model, device=device
    )
    with show_progress("segmenting", quiet=quiet) as advance:
        outcome = run_batch(request, on_progress=advance)
    outcome.raise_if_failed()
    if not quiet:
        typer.echo(f"{outcome.summary}: {outcome.total} rows done, {outcome.earlier} of them earlier")
