"""The code blocks of the documents: found, parsed, and run in a folder that holds what they name."""

import csv
import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import typer
import yaml

from clickvol.cli.app import app, main

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
}

_BLOCK = re.compile(
    r"(?:^ *<!-- not run: ([^\n]*) -->\n)?^( *)```([^\n]*)\n(.*?)^\2```$", re.DOTALL | re.MULTILINE
)
_INLINE = re.compile(r"`(clickvol [^`]*)`")

_PROGRAMS = ("clickvol", ".venv/bin/clickvol")
_WAITING = ("serve", "view")  # run until they are stopped; tests/server and tests/viewer run them


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        language: behind the fence.
        code: its text, without the indentation of the fence.
        reason: why it is not run, by the comment above it; None where it is.
    """

    language: str
    code: str
    reason: str | None


def blocks_of(text):
    """Return the fenced blocks of a document."""
    return [
        Block(
            language,
            "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True)),
            reason or None,
        )
        for reason, indent, language, code in _BLOCK.findall(text)
    ]


def indented_blocks(text):
    """Return the lines that Markdown takes for code without a fence, which nothing here would see."""
    outside = _BLOCK.sub("", text)
    return re.findall(r"(?<=\n\n)    (?! *(?:[-*|]|\d+\.))\S.*", outside)


def command_lines(code):
    """Return the words of every line of a shell block; a backslash joins lines, # begins a comment."""
    lines = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    return [words for words in lines if words]


def clickvol_words(words):
    """Return what stands behind `clickvol` in a line, also behind torchrun or variables, or None."""
    place = next((place for place, word in enumerate(words) if word in _PROGRAMS), None)
    if place is None:
        return None
    after = words[place + 1 :]
    return after[: next((n for n, word in enumerate(after) if word in (">", "&", "|", "2>&1")), len(after))]


def inline_commands(text):
    """Return the words behind `clickvol` of every command that stands in a sentence."""
    return [shlex.split(code)[1:] for code in _INLINE.findall(_BLOCK.sub("", text))]


def unknown_words(words):
    """Return what of a command line no command has: its name, or options."""
    command, context = typer.main.get_command(app), None
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return [words[0]]
        command, words = command.commands[words[0]], words[1:]
    context = typer.Context(command, help_option_names=["-h", "--help"])
    known = {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}
    return [
        word
        for word in words
        if re.match(r"--?[a-zA-Z]", word) and word.split("=")[0] not in known | {"--debug"}
    ]


def unknown_script_words(words):
    """Return what of `python benchmarks/NAME.py ...` is not there: the file, or its options."""
    place = next((place for place, word in enumerate(words) if word.startswith("benchmarks/")), None)
    if place is None:
        return []
    script = ROOT / words[place]
    if not script.is_file():
        return [words[place]]
    text = script.read_text(encoding="utf-8")
    return [word for word in words[place + 1 :] if word.startswith("-") and f'"{word}"' not in text]


def parse(block):
    """Read a block as what it says it is.

    Raises:
        Exception: of the parser, when it is not.
    """
    if block.language == "python":
        compile(block.code, "block", "exec")
    elif block.language == "toml":
        tomllib.loads(block.code)
    elif block.language == "json":
        json.loads(block.code)
    elif block.language == "yaml":
        yaml.safe_load(block.code)
    elif block.language == "csv":
        assert all(None not in (*row, *row.values()) for row in csv.DictReader(block.code.splitlines()))
    elif block.language == "bash":
        unknown = [(words, _unknown(words)) for words in command_lines(block.code)]
        assert [pair for pair in unknown if pair[1]] == []


def _unknown(words):
    ours = clickvol_words(words)
    return unknown_script_words(words) if ours is None else unknown_words(ours)


def run(block, names, replaced):
    """Run a block in the working folder.

    Args:
        block: of Python or the shell; others are not run.
        names: what Python blocks of the page before it have defined, to which this one adds.
        replaced: what stands in its code, to what takes its place.
    """
    code = block.code
    for text, other in replaced.items():
        code = code.replace(text, other)
    if block.language == "python":
        exec(compile(code, "block", "exec"), names)
    for words in command_lines(code) if block.language == "bash" else []:
        if words[0] == "mkdir":
            Path(words[1]).mkdir()
        elif words[1] not in _WAITING:
            assert words[0] in _PROGRAMS, words
            lists_clicks = any(
                "click-masks:" in word for word in words
            )  # and ends with 2 until all are answered
            assert main(words[1:]) in ((0, 2) if lists_clicks else (0,)), words
