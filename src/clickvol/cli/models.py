"""`clickvol models`: which models there are, and what is known about one."""

import json
from typing import Annotated

import typer

models = typer.Typer(
    help="Show the models in this package.", no_args_is_help=False, pretty_exceptions_enable=False
)


@models.command("list")
def list_models(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """List the models that ship in the package."""
    from clickvol.weights.card import DEFAULT_MODEL_ID, list_cards

    cards = list_cards()
    if as_json:
        typer.echo(json.dumps([card.model_dump() for card in cards], indent=2))
        return
    if not cards:
        typer.echo("no models ship in this package")
    for card in cards:
        default = " (default)" if card.id == DEFAULT_MODEL_ID else ""
        typer.echo(f"{card.id}{default}  {', '.join(card.modalities)}  {card.title}")


@models.command("show")
def show_model(
    *,
    model: Annotated[str, typer.Argument(metavar="ID|PATH", help="Id, or path of a card.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
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
