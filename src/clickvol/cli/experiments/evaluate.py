"""`clickvol evaluate`: models and labelled scans in, a report out."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from clickvol.cli.options import Quiet, Scheduler, Workers
from clickvol.errors import ConfigError

_Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help=(
            "Models by id or path; ball, ball:MM, region-growing, random-walker; sam2d-propagated:MODEL for a "
            "2D model carried from slice to slice; predictions:DIR for masks CASE.nii.gz of another program. "
            "NAME=MODEL gives a name."
        ),
    ),
]
_Data = Annotated[
    list[str],
    typer.Option(metavar="[NAME=]DIR", help="Labelled scans, a folder of clickvol data prepare. Repeatable."),
]
_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="REPORT", help="Folder of the report; resumed if begun.")
]
_Split = Annotated[
    str, typer.Option(help="Part of a prepared set: train, val, test or all; others have all only.")
]
_Fold = Annotated[int, typer.Option(min=0, help="Fold of the splits.")]
_ProtocolName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Rules: clickvol, promise3d, sam3d_adapter, tags or cvpr2025; see docs/how-to/evaluate.md.",
    ),
]
_Clicks = Annotated[
    str | None, typer.Option(metavar="1,3,5,10", help="Score after these numbers of clicks; 1-10 for all.")
]
_Seeds = Annotated[int | None, typer.Option(metavar="N", min=1, help="Simulated users per scan.")]
_Tolerance = Annotated[float | None, typer.Option(metavar="MM", help="Tolerance of the NSD that is compared.")]
_Tolerances = Annotated[
    str | None,
    typer.Option("--nsd-tolerances", metavar="1,2,5", help="Tolerances at which the NSD is recorded, in mm."),
]
_Procedure = Annotated[
    Literal["clickvol", "published"] | None,
    typer.Option(
        help=(
            "How clicks become a mask; as the protocol says when not given, else published for models of one "
            "voxel size and clickvol for the others."
        )
    ),
]
_Reference = Annotated[str | None, typer.Option(metavar="NAME", help="Compare the others with this model.")]
_Robustness = Annotated[
    bool, typer.Option("--robustness", help="Also click at the centre, inside, near the edge, outside.")
]
_OrganMask = Annotated[
    Literal["none", "file", "gt"],
    typer.Option(help="For models of the method tags; file: as prepared; gt: of the label, an oracle."),
]
_Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N cases of each set.")]
_Device = Annotated[str, typer.Option(help="Where models compute: auto, cpu, cuda or mps.")]


def evaluate(
    *,
    models: _Models,
    data: _Data,
    output: _Output,
    split: _Split = "test",
    fold: _Fold = 0,
    protocol: _ProtocolName = "clickvol",
    clicks: _Clicks = None,
    seeds: _Seeds = None,
    tolerance: _Tolerance = None,
    nsd_tolerances: _Tolerances = None,
    procedure: _Procedure = None,
    reference: _Reference = None,
    robustness: _Robustness = False,
    organ_mask: _OrganMask = "none",
    limit: _Limit = None,
    device: _Device = "auto",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Score models on labelled scans with a simulated user, and write a report.

    Numbers that are not given are those of the protocol. The same command again goes on where it was stopped.
    """
    from clickvol.cli.progress import show_progress, show_warnings
    from clickvol.evaluation.protocol import read_protocol
    from clickvol.evaluation.run import EvaluationRequest, run_evaluation
    from clickvol.report.page import report_evaluation

    request = EvaluationRequest(
        methods=tuple(models),
        data=tuple(data),
        folder=output,
        protocol=read_protocol(
            protocol,
            num_clicks=None if clicks is None else parse_numbers(clicks),
            seeds=seeds,
            nsd_tolerance_mm=tolerance,
            nsd_tolerances_mm=None if nsd_tolerances is None else parse_tolerances(nsd_tolerances),
            procedure=procedure,
        ),
        split=split,
        fold=fold,
        limit=limit,
        reference=reference,
        robustness=robustness,
        organ_mask=organ_mask,
        device=device,
        workers=workers,
        scheduler=scheduler,
    )
    with show_progress("evaluating", quiet=quiet) as advance:
        evaluated = run_evaluation(request, on_progress=advance)
    report_evaluation(evaluated)
    if not quiet:
        show_warnings(evaluated.warnings)
        show_warnings([f"{s.data} {s.case_id} not evaluated: {s.reason}" for s in evaluated.skipped])
        typer.echo(f"{output / 'report.md'}: {evaluated.outcome()}")


def parse_numbers(text: str) -> tuple[int, ...]:
    """Parse "1,3,5,10", with ranges such as "1-10"; ConfigError for anything else."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})(?:-(\d{1,3}))?\s*", part)
        if match is None:
            raise ConfigError(f"cannot read --clicks {text!r}; give rising numbers such as 1,3,5,10 or 1-10")
        first, last = match.group(1), match.group(2) or match.group(1)
        numbers += range(int(first), int(last) + 1)
    return tuple(numbers)


def parse_tolerances(text: str) -> tuple[float, ...]:
    """Parse "1,2,5" or "0.5,2" as millimetres; ConfigError for anything but numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"cannot read --nsd-tolerances {text!r}; give rising millimetres such as 1,2,5"
        ) from error
