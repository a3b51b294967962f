"""The page of the command line: every command with its options, from the commands themselves."""

from typing import Any

import typer

from clickvol.cli.app import _HELP_OPTIONS, _hide_types_of_flags, app


def commands_page() -> str:
    """Return the page."""
    command = typer.main.get_command(app)
    _hide_types_of_flags(command)
    parts = [
        "# Command line",
        command.help,
        "Exit codes: 0 done, 2 a mistake of yours, 130 interrupted, else 1.",
    ]
    for name, words, inner in _leaves(command, "clickvol"):
        parts += [f"## {name}", inner.help or "", f"```text\nclickvol {words}\n```", _table(inner)]
    return "\n\n".join(parts) + "\n"


def _leaves(group: Any, path: str) -> list[tuple[str, str, Any]]:
    leaves = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            leaves += _leaves(command, f"{path} {name}")
        else:
            context = typer.Context(command, info_name=name)
            words = " ".join(command.collect_usage_pieces(context))
            full = f"{path} {name}".removeprefix("clickvol ")
            leaves.append((full, f"{full} {words}", command))
    return leaves


def _table(command: Any) -> str:
    context = typer.Context(command, help_option_names=_HELP_OPTIONS)
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    lines = [f"| `{words}` | {text} |" for words, text in map(_escaped, filter(None, records))]
    return "\n".join(["| argument or option | does |", "|---|---|", *lines])


def _escaped(record: tuple[str, str]) -> tuple[str, str]:
    words, text = record
    return words.strip().replace("|", "\\|"), " ".join(text.split()).replace("|", "\\|")
