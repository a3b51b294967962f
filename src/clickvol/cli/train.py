"""`clickvol train`: train a model from a configuration file."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    *,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file; see configs/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Change one value; repeatable."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--fresh", help="Go on from the last checkpoint, or start anew."),
    ] = True,
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after this step.")
    ] = None,
) -> None:
    """Train a model; a run that was stopped goes on where it was."""
    from clickvol.training.run import train_from_config

    card = train_from_config(
        config, overrides or [], fresh=not resume, max_steps=steps, report=_report
    )
    typer.echo(f"{card}: the model's card; use it with clickvol segment --model {card}")


def _report(figures: dict[str, float]) -> None:
    typer.echo("  ".join(f"{name} {value:.4g}" for name, value in figures.items()), err=True)
