"""`clickvol data`: bring a public data set into the form that training and evaluation read."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clickvol.cli.options import ModalityOfAll, Scheduler, Workers
from clickvol.cli.progress import show_progress, show_warnings
from clickvol.errors import ConfigError

if TYPE_CHECKING:
    from clickvol.datasets.pictures import PictureFolders, PictureSet
    from clickvol.datasets.prepared import PreparedSet, RejectedCase, StoredCase

data = typer.Typer(
    help="Prepare data sets for training and evaluation.", no_args_is_help=True, pretty_exceptions_enable=False
)


@data.callback()
def _data() -> None:
    """Keep `prepare` a word of its own while it is the only command."""


_Kind = Annotated[
    Literal["msd", "kits", "lits", "folder", "npz", "pictures"],
    typer.Argument(
        help=(
            "Layout of SRC; folder: images/ and labels/ with the same names; npz: CVPR 2025; pictures: PNG, "
            "JPEG or TIFF, two folders, IMAGES MASKS, with the same names, for each data set."
        )
    ),
]
_Sources = Annotated[
    list[Path], typer.Argument(metavar="SRC...", help="Folder of the data set; of pictures two, or more pairs.")
]
_Names = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="NAME", help="Of a data set of pictures; once per pair of folders."),
]
_CropDark = Annotated[bool, typer.Option("--crop-dark", help="Cut dark borders of pictures off.")]
_Destination = Annotated[
    Path, typer.Option("--output", "-o", metavar="DST", help="Folder of the prepared set.")
]
_Label = Annotated[
    str | None,
    typer.Option(
        "--label", "--tumour-label", metavar="N|all", help="Value of the tumour; all: everything above 0."
    ),
]
_Groups = Annotated[
    Path | None, typer.Option(metavar="CSV", help="Columns case,group; a group (patient) is never split.")
]
_Patients = Annotated[
    str,
    typer.Option(metavar="REGEX", help="Instead: what of a case's id is the patient, as in '(.*)_n[0-9]+'."),
]
_Spacing = Annotated[
    str | None, typer.Option(metavar="MM|D,H,W|native", help="Voxels in mm; else as published, or native.")
]
_Constants = Annotated[
    str | None, typer.Option(metavar="NAME", help="Published constants: colon, kits, lits or pancreas.")
]
_Splits = Annotated[
    Path | None, typer.Option(metavar="FILE", help="nnU-Net's splits_final.json, test allowed; else drawn.")
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
    sources: _Sources,
    destination: _Destination,
    label: _Label = None,
    modality: ModalityOfAll = None,
    groups: _Groups = None,
    patients: _Patients = "",
    spacing: _Spacing = None,
    constants: _Constants = None,
    splits: _Splits = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawn split.")] = 0,
    volume: _Volume = None,
    organs: _Organs = "",
    names: _Names = None,
    crop_dark: _CropDark = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    force: _Force = False,
) -> None:
    """Check, resample, measure and split a data set; a run that was stopped goes on where it was."""
    from clickvol.datasets.pictures import PicturePlan, prepare_pictures
    from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
    from clickvol.files.configs import shipped_config

    of_scans: dict[str, Any] = {"modality": modality, "constants": constants, "scheduler": scheduler}
    of_scans |= {"organs": organs, "patients": patients}
    for_scans = {f"--{name}": given for name, given in of_scans.items()}
    for_scans |= {"--spacing": spacing, "--volume": volume}
    _refuse_strangers(kind, for_scans, {"--name": names, "--crop-dark": crop_dark})
    shared: dict[str, Any] = {
        "destination": destination,
        "groups": groups,
        "splits": None if splits is None else shipped_config(splits),
        "seed": seed,
        "workers": workers,
        "force": force,
    }
    value = None if label is None else parse_label(label)
    made: PreparedSet | PictureSet
    with show_progress("preparing", quiet=False) as advance:
        report = partial(_report, advance)
        if kind == "pictures":
            folders = _picture_folders(sources, names or [])
            plan2d = PicturePlan(sources=folders, object_value=value, crop_dark=crop_dark, **shared)
            made = prepare_pictures(plan2d, report)
        else:
            plan = PreparationPlan(
                kind=kind,
                source=_only_source(sources),
                tumour_label=value,
                spacing_dhw_mm=None if spacing is None else _parse_spacing(spacing),
                volume_index=volume,
                **of_scans,
                **shared,
            )
            made = prepare_data_set(plan, report)
    show_warnings(made.notes)
    typer.echo(_summary(made, destination))


def _report(
    advance: Callable[[int, int, str], None], done: int, total: int, last: "StoredCase | RejectedCase"
) -> None:
    from clickvol.datasets.prepared import RejectedCase

    advance(done, total, last.case_id)
    if isinstance(last, RejectedCase):
        typer.echo(f"rejected: {last.case_id}: {last.reason}", err=True)


def _refuse_strangers(kind: str, for_scans: Mapping[str, object], for_pictures: Mapping[str, object]) -> None:
    strange, what = (for_scans, "scans") if kind == "pictures" else (for_pictures, "pictures")
    given = next((option for option, value in strange.items() if value not in (None, "", False)), None)
    if given is not None:
        raise ConfigError(f"{given} is for {what}; leave it out, or choose another layout than {kind}")


def _only_source(sources: Sequence[Path]) -> Path:
    if len(sources) > 1:
        raise ConfigError(f"{len(sources)} folders are given; one data set of scans is prepared at a time")
    return sources[0]


def _picture_folders(sources: Sequence[Path], names: Sequence[str]) -> "tuple[PictureFolders, ...]":
    """Return the pairs of folders with their names: those that are given, else of the folders."""
    from clickvol.datasets.pictures import PictureFolders

    if len(sources) % 2:
        raise ConfigError(
            "pictures come in pairs of folders: IMAGES MASKS, and again for each further data set"
        )
    pairs = list(zip(sources[::2], sources[1::2], strict=True))
    full = [images.resolve() for images, _ in pairs]
    names = names or [path.parent.name if path.name.lower() == "images" else path.name for path in full]
    if len(names) != len(pairs):
        raise ConfigError(
            f"{len(pairs)} pairs of folders have {len(names)} names; give --name for each, in order"
        )
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(
                f"{name!r} cannot name a data set: letters, digits, dots, dashes and underscores can"
            )
    return tuple(PictureFolders(name, *pair) for name, pair in zip(names, pairs, strict=True))


def _summary(made: "PreparedSet | PictureSet", folder: Path) -> str:
    parts = ", ".join(f"{len(made.part(name))} {name}" for name in ("train", "val", "test"))
    count = f"{len(made.cases)} cases of {made.name} prepared, {len(made.rejected)} rejected"
    scales = "".join(
        f"; {name} {known.low:.4g} to {known.high:.4g}, mean {known.mean:.4g}, deviation "
        f"{known.deviation:.4g} ({known.source})"
        for name, known in getattr(made, "intensity", {}).items()
    )
    return f"{folder}: {count}: {parts}{scales}"


def parse_label(text: str) -> int | Literal["all"]:
    """Read a value above 0, or "all"; ConfigError for anything else."""
    if text.strip().lower() == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--label takes a value above 0 or all, not {text!r}")
    return int(text)


def _parse_spacing(text: str) -> tuple[float, float, float] | Literal["native"]:
    """Read "native", one length for all axes, or three for d, h, w."""
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
