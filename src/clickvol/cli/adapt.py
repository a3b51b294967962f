"""`clickvol adapt`: a shipped model fitted to one's own masks, in minutes on a CPU."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clickvol.cli.experiments.data import parse_label
from clickvol.cli.options import ModalityOfAll
from clickvol.cli.progress import show_progress

if TYPE_CHECKING:
    from clickvol.adapt.run import AdaptOutcome
    from clickvol.datasets.prepared import RejectedCase

EXIT_NOT_BETTER = 3

_Source = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER|MANIFEST",
        help="3 to 50 patients: an MSD or nnU-Net folder, images/ and labels/, session records, or a CSV with "
        "the columns scan, label and, if wanted, patient.",
    ),
]
_Model = Annotated[Path, typer.Option("--output", "-o", metavar="MODEL", help="Name of the new model's files.")]
_Labels = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Masks or session records, where SRC is a folder of scans."),
]
_Label = Annotated[
    str | None,
    typer.Option(metavar="N|all", help="Value of the object in the labels; all: everything above 0."),
]
_Groups = Annotated[
    Path | None, typer.Option(metavar="CSV", help="Columns case,group: scans of one patient are one group.")
]
_Base = Annotated[
    str | None,
    typer.Option(metavar="ID|PATH", help="What to begin with; else the shipped model that is better before."),
]
_Minutes = Annotated[float, typer.Option(min=0.5, max=600.0, help="For measuring and training together.")]
_Force = Annotated[bool, typer.Option("--force", help="Write the model although it is not better.")]


def adapt(
    *,
    source: _Source,
    output: _Model,
    labels: _Labels = None,
    label: _Label = None,
    modality: ModalityOfAll = None,
    groups: _Groups = None,
    base: _Base = None,
    minutes: _Minutes = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    force: _Force = False,
) -> None:
    """Fit a model to your own masks; it is written only if it is better at patients it has not seen.

    A run that was stopped goes on with the same command. The exit code is 3 where the model is not better.
    """
    from clickvol.adapt.intake import Intake
    from clickvol.adapt.run import AdaptRequest
    from clickvol.adapt.run import adapt as adapt_model

    intake = Intake(
        source=source,
        labels=labels,
        label=None if label is None else parse_label(label),
        modality=modality,
        groups=groups,
    )
    request = AdaptRequest(
        intake=intake,
        output=output,
        base=base,
        minutes=minutes,
        most_minutes=1.5 * minutes,
        seed=seed,
        force=force,
        command=shlex.join(["clickvol", *sys.argv[1:]]),
    )

    def tell(rejected: "RejectedCase") -> None:
        typer.echo(f"rejected: {rejected.case_id}: {rejected.reason}", err=True)

    with show_progress("adapting", quiet=False) as advance:
        outcome = adapt_model(request, lambda text, part: advance(round(1000 * part), 1000, text), tell)
    for line in _table(outcome):
        typer.echo(line)
    if outcome.card is None:
        typer.echo(
            f"not better than {outcome.base_id} at patients left out, so nothing was written; more patients or "
            f"--minutes may help, --force writes it at once from {output}.work, which may be deleted",
            err=True,
        )
        raise typer.Exit(EXIT_NOT_BETTER)
    typer.echo(f"{outcome.card}: the model's card; use it with --model {outcome.card}")


def _table(outcome: "AdaptOutcome") -> list[str]:
    known = outcome.comparison
    lines = [f"{'clicks':<8}{outcome.base_id:>20}{'adapted':>10}{'objects better':>18}"]
    for row in known.rows():
        if "clicks" in row:
            better = f"{row['objects_better']} of {row['objects']}"
            lines.append(
                f"{row['clicks']:<8}{row['mean_dice_before']:>20.3f}{row['mean_dice_after']:>10.3f}{better:>18}"
            )
    if outcome.elsewhere is not None:
        lines.append(f"{outcome.elsewhere.loss_elsewhere()} Take {outcome.base_id} for those.")
    lines.append(f"mean Dice over patients, each left out of the training; {outcome.seconds / 60:.1f} minutes")
    return lines
