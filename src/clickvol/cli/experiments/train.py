"""`clickvol train`: train a model from a configuration file."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from clickvol.cli.progress import show_progress


def train(
    *,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file; `clickvol configs` has some.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Change one value; repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from the last checkpoint, or start anew.")
    ] = True,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after this step.")] = None,
) -> None:
    """Train a model; a run that was stopped goes on where it was.

    On several GPUs or machines: torchrun --nproc-per-node N -m clickvol train CONFIG
    """
    from clickvol.files.configs import shipped_config
    from clickvol.training.run import train_from_config
    from clickvol.weights.card import read_card

    done: set[float] = set()
    with _show_figures() as report:

        def follow(figures: dict[str, float]) -> None:
            done.add(figures["step"])
            report(figures)

        path = shipped_config(config)
        card = train_from_config(path, overrides or [], fresh=not resume, max_steps=steps, report=follow)
    if not done:
        more = "raise optimiser.steps or run.minutes to go on, or begin again with --fresh"
        typer.echo(f"no step is left: {more}", err=True)
    if card.is_file():
        is_for_images = read_card(card).fields_of_view is None
        command = "segment-image" if is_for_images else "segment"
        typer.echo(f"{card}: the model's card; use it with clickvol {command} --model {card}")


@contextlib.contextmanager
def _show_figures() -> Iterator[Callable[[dict[str, float]], None]]:
    """Show a bar with the time that is left on a terminal, and a line per report elsewhere."""
    from rich.console import Console

    if not Console(stderr=True).is_terminal:
        yield _print_line
        return
    with show_progress("training", quiet=False) as advance:
        words = ""

        def show(figures: dict[str, float]) -> None:
            nonlocal words
            if "loss" in figures:
                words = "loss {loss:.3f}  Dice {dice:.3f}  {samples_per_second:.3g} samples/s".format(**figures)
            advance(int(figures["step"]), int(figures["num_steps"]), words)

        yield show


def _print_line(figures: dict[str, float]) -> None:
    if "loss" not in figures:
        return
    left = (figures["num_steps"] - figures["step"]) * figures["seconds_per_step"]
    words = [f"step {figures['step']:.0f} of {figures['num_steps']:.0f}"]
    words += [f"{name} {figures[name]:.4g}" for name in ("loss", "dice", "learning_rate")]
    words += [f"{figures['samples_per_second']:.3g} samples/s", f"{timedelta(seconds=round(left))} left"]
    typer.echo("  ".join(words), err=True)
