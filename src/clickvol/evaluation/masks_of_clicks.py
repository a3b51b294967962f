"""Masks that another program makes of clicks: a file per list of clicks, and a list of those wanted."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickvol.errors import ClickError, ClickvolError
from clickvol.files.atomic import write_text
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.prompts.click import Click

TODO_NAME = "todo.csv"
"""The masks that are wanted, a manifest of `clickvol batch`: scan, click, output."""

SUFFIX = ".nii.gz"


@dataclass(frozen=True, slots=True, order=True)
class WantedMask:
    """A mask that another program has not made yet; its clicks as --click takes them, with ";"."""

    folder: Path
    output: str
    click: str
    scan: str = ""


class MissingMaskError(ClickvolError):
    """A mask that another program is still to make of clicks."""

    def __init__(self, wanted: WantedMask) -> None:
        super().__init__(f"{wanted.folder / wanted.output} is not there yet")
        self.wanted = wanted

    def __reduce__(self) -> tuple[type["MissingMaskError"], tuple[WantedMask]]:
        """Let the error pass between processes."""
        return type(self), (self.wanted,)


def wanted_mask(folder: Path, case_id: str, clicks: Sequence[Click]) -> WantedMask:
    """Return which file holds the mask of clicks: CASE_120-88-41.nii.gz, with n before background ones.

    With another click more it is another file. ClickError for clicks that are not in voxels.
    """
    names, texts = [], []
    for click in clicks:
        if not isinstance(click.position, VoxelPoint):
            raise ClickError("masks of clicks are named by voxels; give clicks in voxels")
        ijk = [f"{value:g}" for value in click.position.as_array()[::-1]]
        names.append(("" if click.foreground else "n") + "-".join(ijk))
        texts.append(",".join(ijk) + ("" if click.foreground else ":-"))
    return WantedMask(folder, "_".join([case_id, *names]) + SUFFIX, ";".join(texts))


def write_todo(wanted: Iterable[WantedMask]) -> Path:
    """Write the list of wanted masks, all of one folder, into it, each once."""
    rows = sorted(set(wanted))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("scan", "click", "output"))
    writer.writerows((row.scan, row.click, row.output) for row in rows)
    path = rows[0].folder / TODO_NAME
    write_text(path, text.getvalue())
    return path
