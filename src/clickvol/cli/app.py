"""The command `clickvol`: which commands there are, and what becomes of an error.

Nothing heavy is imported here or by a command's module, so that help and mistakes are answered at
once; each command imports what it needs when it runs.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from clickvol.cli.adapt import adapt
from clickvol.cli.batch import batch
from clickvol.cli.demo import demo
from clickvol.cli.experiments.configs import configs
from clickvol.cli.experiments.data import data
from clickvol.cli.experiments.evaluate import evaluate
from clickvol.cli.experiments.nnunet import nnunet
from clickvol.cli.experiments.reproduce import reproduce
from clickvol.cli.experiments.train import train
from clickvol.cli.info import info
from clickvol.cli.models.app import models
from clickvol.cli.replay import replay
from clickvol.cli.segment import segment
from clickvol.cli.segment_image import segment_image
from clickvol.cli.serve import serve
from clickvol.cli.view import view
from clickvol.errors import ClickvolError
from clickvol.version import __version__

EXIT_DONE = 0
EXIT_UNEXPECTED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # as shells report a process that Ctrl-C ended

_HELP_OPTIONS = ["-h", "--help"]

app = typer.Typer(
    name="clickvol",
    help=(
        "One click in a CT or MR scan gives the tumour in 3D. Research use only, not a medical "
        "device. Nothing leaves this machine but to an archive that you name."
    ),
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": _HELP_OPTIONS},
)
app.command()(segment)
app.command()(segment_image)
app.command()(batch)
app.command()(replay)
app.command()(demo)
app.command()(view)
app.add_typer(models, name="models")
app.add_typer(data, name="data")
app.add_typer(nnunet, name="nnunet")
app.command()(info)
app.command()(configs)
app.command()(train)
app.command()(adapt)
app.command()(evaluate)
app.command()(reproduce)
app.command()(serve)


@app.callback(invoke_without_command=True)
def _global_options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[  # noqa: ARG001  # taken out of the words by `main`; here for the help
        bool, typer.Option("--debug", help="Show the traceback of an error; for any command.")
    ] = False,
) -> None:
    if version:
        typer.echo(f"clickvol {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@runtime_checkable
class _UsageMistake(Protocol):
    """What Typer raises for words that it cannot parse, whatever its version calls the class."""

    exit_code: int

    def format_message(self) -> str:
        """Return what is wrong."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after `clickvol`; those of this process when not given.

    Returns:
        The exit code: 0 done, 1 a fault of the program, 2 a mistake of the user's
        (one line on stderr says which), 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        code = _run([word for word in words if word != "--debug"])
        if code == EXIT_INTERRUPTED:  # what Typer makes of Ctrl-C in a command
            raise KeyboardInterrupt
        # A closed pipe would otherwise show only when Python shuts down, where nobody catches it.
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough (`clickvol info | head -1`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNEXPECTED
    except Exception as error:  # the one place that must catch all: an end user sees no traceback
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
        typer.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _run(words: list[str]) -> int:
    if words[:1] == ["segment"] and _is_picture(words[1:2]):
        words = ["segment-image", *words[1:]]
    command = typer.main.get_command(app)
    _hide_types_of_flags(command)
    code = command.main(args=words, prog_name="clickvol", standalone_mode=False)
    return code if isinstance(code, int) else EXIT_DONE


def _is_picture(words: list[str]) -> bool:
    from clickvol.io.pictures import is_picture

    return any(is_picture(word) for word in words)


def _hide_types_of_flags(command: object) -> None:
    """Leave out the <bool> that Typer prints behind every flag of a command and those below it."""
    if not isinstance(command, TyperCommand | TyperGroup):
        return
    context = typer.Context(command, help_option_names=_HELP_OPTIONS)
    for option in command.get_params(context):
        if isinstance(option, TyperOption) and option.is_flag:
            option.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _hide_types_of_flags(inner)


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, ClickvolError):
        return str(error), EXIT_USER_ERROR
    if isinstance(error, _UsageMistake):
        return f"{error.format_message()} (see clickvol --help)", EXIT_USER_ERROR
    if isinstance(error, MemoryError):
        return "there is not enough memory for this scan; close other programs", EXIT_UNEXPECTED
    what = f"{type(error).__name__}: {error}"
    return f"unexpected {what}; please report this; --debug shows the traceback", EXIT_UNEXPECTED
