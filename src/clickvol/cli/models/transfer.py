"""`clickvol models import` and `export`: checkpoints of the published code, in and out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clickvol.cli.options import AsJson

if TYPE_CHECKING:
    from clickvol.weights.official.importing import ImportedModel

_METHODS = "promise3d, sam3d_adapter, promise2d or sam2d"


def import_model(
    *,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .pth.tar of ProMISe-3D or 3DSAM-adapter; a ProMISe-2D; sam_vit_*.pth; lite_medsam.pth.",
            show_default=False,
        ),
    ],
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where card and weights go.")],
    method: Annotated[
        str | None, typer.Option(metavar="METHOD", help=f"{_METHODS}; told by the file when left out.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="colon, pancreas, lits or kits: what a 3D model was trained on. Decides how scans are scaled.",
        ),
    ] = None,
    model_id: Annotated[str | None, typer.Option("--id", metavar="NAME", help="Id of the new model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a published checkpoint into a model of this package; nothing in the file is run."""
    from clickvol.weights.official.importing import import_checkpoint

    imported = import_checkpoint(file, folder, method=method, dataset=dataset, model_id=model_id)
    _show_import(imported, as_json=as_json)


def _show_import(imported: "ImportedModel", *, as_json: bool) -> None:
    card = imported.card
    weights = imported.card_path.with_name(card.weights_file)
    if as_json:
        facts = {
            "id": card.id,
            "method": card.method,
            "card": str(imported.card_path),
            "weights": str(weights),
            "sha256": card.sha256,
            "parameters": card.num_parameters,
            "intensity": card.model_dump(mode="json")["intensity"],
            "licence": card.licence,
            "left_out": list(imported.dropped),
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"{card.id}: {card.title}")
    lines = {
        "card": imported.card_path,
        "weights": f"{weights} ({card.num_parameters:,} parameters, {card.bytes / 1e6:.1f} MB)",
        "licence": card.licence,
    }
    for name, fact in lines.items():
        typer.echo(f"{name:<12}{fact}")
    for line in imported.dropped:
        typer.echo(f"left out    {line}")
    if card.method not in ("sam2d", "promise2d") and card.intensity is None:
        typer.echo("note: scans will get this package's own scale; --dataset gives the published one", err=True)


def export_model(
    *,
    model: Annotated[str, typer.Argument(metavar="ID|PATH", help="Id, or path of a card.")],
    target: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The .pth.tar or .pth to write.")
    ],
    method: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help=f"Whose layout: {_METHODS}; the model's own if left out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model in the layout of its method's authors, for their own code to read."""
    from clickvol.weights.official.exporting import export_checkpoint

    exported = export_checkpoint(model, target, method=method)
    if as_json:
        facts = {
            "file": str(exported.path),
            "layout": exported.method,
            "bytes": exported.path.stat().st_size,
            "notes": list(exported.notes),
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    size = exported.path.stat().st_size / 1e6
    typer.echo(f"{exported.path}: layout of {exported.method}, {size:.1f} MB")
    for note in exported.notes:
        typer.echo(f"note        {note}")
