"""What a person watching sees while a command works."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import typer

# The time that is left is estimated from so much of what went before: many parts that take minutes each.
_ESTIMATE_SECONDS = 3600.0


@contextlib.contextmanager
def show_stages(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show the stage that begins with each call with a spinner on stderr, where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _stage: None
        return
    with console.status("starting") as status:
        yield lambda stage: status.update(f"{stage} ...")


@contextlib.contextmanager
def show_progress(title: str, *, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar with the time that is left on stderr, where that is a terminal.

    Yields:
        A function that takes how many parts are done, of how many, and what was done last. The time that is
        left is estimated from what was done since the first call, so that a resumed job is not too hopeful.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _done, _total, _text: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=_ESTIMATE_SECONDS) as progress:
        tasks: list[TaskID] = []

        def advance(done: int, total: int, text: str) -> None:
            if not tasks:
                tasks.append(progress.add_task(title, total=total, completed=done, last=text))
            progress.update(tasks[0], completed=done, total=total, last=text)

        yield advance


def show_warnings(warnings: Sequence[str]) -> None:
    """Print one line each on stderr."""
    for warning in warnings:
        typer.echo(f"warning: {' '.join(warning.split())}", err=True)
