"""`clickvol models`: which models there are, what is known about one, getting more, and taking them along."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clickvol.cli.models.fetch import fetch_model
from clickvol.cli.models.text_bank import make_bank
from clickvol.cli.models.transfer import export_model, import_model
from clickvol.cli.options import AsJson

if TYPE_CHECKING:
    from clickvol.weights.registry import RegistryEntry

models = typer.Typer(
    help="Show the models in this package, and get others.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)
models.command("fetch")(fetch_model)
models.command("text-bank")(make_bank)
models.command("import")(import_model)
models.command("export")(export_model)


@models.command("list")
def list_models(*, as_json: AsJson = False) -> None:
    """List the models that ship in the package, and the weights that can be fetched."""
    from clickvol.weights.card import DEFAULT_MODEL_ID, list_cards
    from clickvol.weights.registry import list_entries

    cards = list_cards()
    others = [_other(entry) for entry in list_entries() if entry.source.kind != "shipped"]
    if as_json:
        content = {"models": [card.model_dump() for card in cards], "others": others}
        typer.echo(json.dumps(content, indent=2))
        return
    if not cards:
        typer.echo("no models ship in this package")
    for card in cards:
        default = " (default)" if card.id == DEFAULT_MODEL_ID else ""
        typer.echo(f"{card.id}{default}  {', '.join(card.modalities)}  {card.title}")
    typer.echo("\nnot in this package; clickvol models fetch ID gets one, or says how to get it")
    for other in others:
        size = "by hand" if other["bytes"] is None else f"{other['bytes'] / 1e6:.0f} MB"
        here = ", in the cache" if other["cached"] else ""
        typer.echo(f"{other['id']}  {size}{here}  {other['title']}")


def _other(entry: "RegistryEntry") -> dict[str, Any]:
    from clickvol.weights.cache import is_cached

    source = entry.source
    return {
        "id": entry.id,
        "title": entry.title,
        "method": entry.method,
        "licence": entry.licence,
        "source": source.kind,
        "bytes": source.original.bytes if source.kind in ("url", "package") else None,
        "cached": is_cached(entry),
    }


@models.command("card")
def show_model_card(
    *,
    model: Annotated[str, typer.Argument(metavar="ID", help="Id of a model in this package.")],
    data: Annotated[
        bool, typer.Option("--data", help="What it was trained on, instead: the data sheet.")
    ] = False,
) -> None:
    """Show what a model is for and not for, how good it is, where it fails, and what it cost (Markdown)."""
    from clickvol.errors import ModelNotFoundError
    from clickvol.weights.card import find_card

    path = find_card(model).with_suffix(".md")
    page = path.with_name("data-sheet.md") if data else path
    if not page.is_file():
        raise ModelNotFoundError(f"{model} has no page; clickvol models show {model} says what is known of it")
    typer.echo(page.read_text(encoding="utf-8"))


@models.command("show")
def show_model(
    *,
    model: Annotated[str, typer.Argument(metavar="ID|PATH", help="Id, or path of a card.")],
    as_json: AsJson = False,
) -> None:
    """Show the card of a model: training data, licence, scores, limits."""
    from clickvol.weights.card import read_card

    card = read_card(model)
    if as_json:
        typer.echo(card.model_dump_json(indent=2))
        return
    facts = {
        "id": card.id,
        "title": card.title,
        "method": card.method,
        "modalities": ", ".join(card.modalities),
        "licence": card.licence,
        "size": f"{card.num_parameters:,} parameters, {card.bytes / 1e6:.1f} MB ({card.dtype})",
        "sha256": card.sha256,
        "made by": f"{card.training_command} (clickvol {card.clickvol_version})",
    }
    for name, fact in facts.items():
        typer.echo(f"{name:<12}{fact}")
    scores = [", ".join(f"{k} {v}" for k, v in score.items()) for score in card.scores]
    sections = {"training data": card.training_data, "scores": scores, "notes": card.notes}
    for title, lines in sections.items():
        if lines:
            typer.echo(f"\n{title}\n" + "\n".join(f"  - {line}" for line in lines))
    typer.echo("\nResearch use only, not a medical device.")
