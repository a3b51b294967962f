"""`clickvol configs`: the training and study files that come with clickvol."""

from pathlib import Path
from typing import Annotated

import typer


def configs(
    *,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Copy all of them into this new folder.")
    ] = None,
) -> None:
    """List the training and study files that come with clickvol, or copy them, to be changed.

    Commands take configs/NAME.toml as it is shipped, unless the working folder has one of its own.
    """
    from clickvol.files.configs import copy_configs, list_configs

    if folder is not None:
        copy_configs(folder)
        typer.echo(f"{folder}: change what you need, then: clickvol train {folder / 'own-data.toml'}")
        return
    for name, comment in list_configs().items():
        typer.echo(f"{name:<40}{comment}".rstrip())
