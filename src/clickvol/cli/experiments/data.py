"""`clickvol data`: bring a public data set into the form that training and evaluation read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clickvol.cli.options import Scheduler, Workers
from clickvol.cli.progress import show_progress, show_warnings
from clickvol.errors import ConfigError

if TYPE_CHECKING:
    from clickvol.datasets.prepared import LabelledCase, PreparedSet, RejectedCase

data = typer.Typer(
    help="Prepare data sets for training and evaluation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@data.callback()
def _data() -> None:
    """Keep `prepare` a word of its own while it is the only command."""


_Kind = Annotated[
    Literal["msd", "kits", "lits", "folder", "npz"],
    typer.Argument(help="Layout of SRC; folder: images/ and labels/ with the same names; npz: CVPR 2025."),
]
_Source = Annotated[Path, typer.Argument(metavar="SRC", help="Folder of the data set.")]
_Destination = Annotated[
    Path, typer.Option("--output", "-o", metavar="DST", help="Folder of the prepared set.")
]
_Label = Annotated[
    str | None,
    typer.Option(metavar="N|all", help="Value of the tumour in the labels; all: everything above 0."),
]
_Modality = Annotated[Literal["CT", "MR"] | None, typer.Option(help="Of all scans; else by the data.")]
_Groups = Annotated[
    Path | None,
    typer.Option(metavar="CSV", help="Columns case,group; a group (patient) is never split."),
]
_Spacing = Annotated[
    str | None,
    typer.Option(metavar="MM|D,H,W|native", help="Voxels in mm; else as published, or native."),
]
_Constants = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Published constants: colon, kits, lits or pancreas."),
]
_Splits = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="nnU-Net's splits_final.json, test allowed; else drawn."),
]
_Volume = Annotated[int | None, typer.Option("--volume", min=0, metavar="N", help="Which volume of 4D images.")]
_Organs = Annotated[
    str,
    typer.Option(metavar="PATTERN", help="Organ masks, from the scan's folder: ../organs/{case_id}.nii.gz."),
]
_Force = Annotated[bool, typer.Option("--force", help="Make finished cases again; replace another set.")]


@data.command("prepare")
def prepare(
    *,
    kind: _Kind,
    source: _Source,
    destination: _Destination,
    label: _Label = None,
    modality: _Modality = None,
    groups: _Groups = None,
    spacing: _Spacing = None,
    constants: _Constants = None,
    splits: _Splits = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawn split.")] = 0,
    volume: _Volume = None,
    organs: _Organs = "",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    force: _Force = False,
) -> None:
    """Check, resample, measure and split a data set; a run that was stopped goes on where it was."""
    from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
    from clickvol.datasets.prepared import RejectedCase

    plan = PreparationPlan(
        kind=kind,
        source=source,
        destination=destination,
        tumour_label=None if label is None else parse_label(label),
        modality=modality,
        spacing_dhw_mm=None if spacing is None else _parse_spacing(spacing),
        constants=constants,
        groups=groups,
        splits=splits,
        seed=seed,
        workers=workers,
        scheduler=scheduler,
        volume_index=volume,
        organs=organs,
        force=force,
    )
    with show_progress("preparing", quiet=False) as advance:

        def report(done: int, total: int, last: "LabelledCase | RejectedCase") -> None:
            advance(done, total, last.case_id)
            if isinstance(last, RejectedCase):
                typer.echo(f"rejected: {last.case_id}: {last.reason}", err=True)

        made = prepare_data_set(plan, report)
    show_warnings(made.notes)
    typer.echo(_summary(made, destination))


def _summary(made: "PreparedSet", folder: Path) -> str:
    parts = ", ".join(f"{len(made.part(name))} {name}" for name in ("train", "val", "test"))
    scales = "; ".join(
        f"{name} {known.low:.4g} to {known.high:.4g}, mean {known.mean:.4g}, deviation "
        f"{known.deviation:.4g} ({known.source})"
        for name, known in made.intensity.items()
    )
    count = f"{len(made.cases)} cases of {made.name} prepared, {len(made.rejected)} rejected"
    return f"{folder}: {count}: {parts}; {scales}"


def parse_label(text: str) -> int | Literal["all"]:
    """Read a value above 0, or "all".

    Raises:
        ConfigError: for anything else.
    """
    if text.strip().lower() == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--label takes a value above 0 or all, not {text!r}")
    return int(text)


def _parse_spacing(text: str) -> tuple[float, float, float] | Literal["native"]:
    """Read "native", one length for all axes, or three for d, h, w.

    Raises:
        ConfigError: for anything else.
    """
    if text.strip().lower() == "native":
        return "native"
    try:
        sides = [float(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if len(sides) == 1:
        sides *= 3
    if len(sides) != 3 or not all(0 < side < float("inf") for side in sides):
        raise ConfigError(
            f"--spacing takes native, a length in mm or three as D,H,W, all above 0, not {text!r}"
        )
    d, h, w = sides
    return (d, h, w)
