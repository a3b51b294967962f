"""Scribbles, lassos and masks to correct from files.

Points come as JSON: a list of `[a, b, c]`; a list of such lists for several strokes; either as "points" of an
object with their "space"; or a markup of 3D Slicer (.mrk.json), which says its own space. Drawn voxels come as
a label image on the grid of the scan, drawn where it is above 0.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from clickvol.errors import ClickError
from clickvol.io.mask_files import read_label
from clickvol.io.volume import Volume
from clickvol.prompts.click import Click, Space
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import GivenMask, Lasso, Position, Scribble

_Point = tuple[float, float, float]


@checked_dataclass(config=ConfigDict(extra="forbid"))
class _Strokes:
    points: list[_Point] | list[list[_Point]] = Field(min_length=1)
    space: Space | None = None


_STROKES = TypeAdapter(_Strokes)


@dataclass(frozen=True, slots=True)
class DrawingFile:
    """A file with what was drawn, on the object or beside it; points may say their own space."""

    kind: Literal["scribble", "lasso", "mask"]
    path: Path
    foreground: bool = True
    space: Space = "ijk"

    def read(self, scan: Volume) -> list[Scribble | Lasso | GivenMask]:
        """Read what was drawn: a prompt for each stroke.

        ClickError when it cannot be used on the scan; UnreadableVolumeError, BadGeometryError for an image.
        """
        if self.path.suffix.lower() == ".json":
            if self.kind == "mask":
                raise ClickError(f"{self.path} holds points; a mask is an image on the grid of the scan")
            strokes = _strokes_of(self.path, self.space)
            try:
                return [self._drawn(stroke, scan) for stroke in strokes]
            except ClickError as error:
                raise ClickError(f"{self.path}: {error}") from error
        label = read_label(self.path, scan)
        label.grid.check_same_place(scan.grid, f"the {self.kind} {self.path}", ClickError)
        voxels = PackedMask.of(label.array.astype(np.float64) > 0)
        kinds: dict[str, type[Scribble | Lasso | GivenMask]]
        kinds = {"scribble": Scribble, "lasso": Lasso, "mask": GivenMask}
        drawn = kinds[self.kind](voxels, self.foreground)
        drawn.check(scan.grid)
        return [drawn]

    def _drawn(self, points: list[Position], scan: Volume) -> Scribble | Lasso:
        if self.kind == "lasso":
            return Lasso.around(points, scan.grid, foreground=self.foreground)
        return Scribble.along(points, scan.grid, foreground=self.foreground)


def _strokes_of(path: Path, space: Space) -> list[list[Position]]:
    """Return the points of each stroke of a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        strokes = [_STROKES.validate_python(part) for part in _parts_of(content)]
    except OSError as error:
        raise ClickError(f"cannot read {path}: {error.strerror}; give a JSON file or an image") from error
    except (ValueError, ValidationError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ClickError(
            f"{path} holds no points; give JSON such as [[120, 88, 41], [131, 90, 41]], a markup of 3D Slicer, "
            "or an image on the grid of the scan"
        ) from error
    result = []
    for part in strokes:
        # A list of points, or a list of such lists.
        lists = [np.reshape(points, (-1, 3)) for points in ([part.points] if _is_flat(part) else part.points)]
        result += [
            [Click.at((a, b, c), space=part.space or space).position for a, b, c in points.tolist()]
            for points in lists
        ]
    return result


def _is_flat(strokes: _Strokes) -> bool:
    return np.ndim(strokes.points[0]) == 1


def _parts_of(content: Any) -> list[dict[str, Any]]:  # noqa: ANN401  # whatever JSON holds
    """Bring each form of the file to `points` and `space`."""
    if isinstance(content, list):
        return [{"points": content}]
    if "markups" not in content:
        return [content]
    return [
        {
            "space": str(markup["coordinateSystem"]).lower(),
            "points": [point["position"] for point in markup["controlPoints"]],
        }
        for markup in content["markups"]
    ]
