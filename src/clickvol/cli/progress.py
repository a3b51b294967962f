"""What a person watching sees while a command works."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import typer


@contextlib.contextmanager
def show_stages(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show the current stage with a spinner on stderr, where that is a terminal.

    Yields:
        A function that takes the name of the stage that begins now.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _stage: None
        return
    with console.status("starting") as status:
        yield lambda stage: status.update(f"{stage} ...")


def show_warnings(warnings: Sequence[str]) -> None:
    """Print one line each on stderr."""
    for warning in warnings:
        typer.echo(f"warning: {' '.join(warning.split())}", err=True)
