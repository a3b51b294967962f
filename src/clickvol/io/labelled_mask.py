"""A mask with a name, one object of those that were clicked in a scan, and what it can be, in SNOMED CT."""

import colorsys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ConfigError, OutputError
from clickvol.io.volume import Mask


@dataclass(frozen=True, slots=True)
class SegmentTerm:
    """A coded meaning of SNOMED CT, in English, and the kind of thing that it is."""

    code: str
    meaning: str
    category_code: str
    category: str


TERMS: dict[str, SegmentTerm] = {
    code: SegmentTerm(code, meaning, category["code"], category["name"])
    for category in tomllib.loads(Path(__file__).with_name("terms.toml").read_text(encoding="utf-8"))[
        "category"
    ]
    for code, meaning in category["meanings"].items()
}
"""By their codes."""

NEOPLASM = TERMS["108369006"]
"""What was clicked is taken for a tumour; of which kind nobody said."""


# DICOM LO, the type of Segment Label and ROI Name: 64 characters, no backslash, no control characters
# (PS3.5, 6.2).
_MAX_NAME_LENGTH = 64

# The golden ratio: steps of it around the circle of hues never come close to an earlier one.
_HUE_STEP = 0.618034


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelledMask:
    """One object of a scan.

    Attributes:
        name: what a user calls it; 1 to 64 characters, no backslash and no line break, else a ConfigError.
        mask: where it is; may be empty.
        model_id, model_version: what made it; "" for none, or where it is not known.
        made_by: "model" without a click, "model with clicks", or "person".
        term: what it is.
        colour: red, green and blue, 0 to 255; None for that of its number (`display_colour`).
    """

    name: str
    mask: Mask
    model_id: str = ""
    model_version: str = ""
    made_by: Literal["model", "model with clicks", "person"] = "model with clicks"
    term: SegmentTerm = NEOPLASM
    colour: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        is_printable = self.name.isprintable() and "\\" not in self.name
        if not (self.name.strip() and is_printable and len(self.name) <= _MAX_NAME_LENGTH):
            raise ConfigError(
                f"{self.name!r} cannot be the name of an object; give 1 to {_MAX_NAME_LENGTH} printable "
                "characters without a backslash"
            )


def display_colour(number: int) -> tuple[int, int, int]:
    """Return a colour for object `number`, from 1: red, green and blue, 0 to 255; the first is red."""
    red, green, blue = colorsys.hsv_to_rgb(((number - 1) * _HUE_STEP) % 1.0, 0.8, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def label_map(masks: Sequence[LabelledMask]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Paint 1 to 65535 objects of one grid, else OutputError; where they overlap, the smaller one is seen.

    Returns:
        (D, H, W): the number of the object from 1, 0 outside all.
    """
    if not masks or len({m.mask.array.shape for m in masks}) > 1 or len(masks) > 65535:
        raise OutputError(f"{len(masks)} masks make no label map; give 1 to 65535 masks of one scan")
    shape = masks[0].mask.array.shape
    labels = np.zeros(shape, np.uint8) if len(masks) < 256 else np.zeros(shape, np.uint16)
    sizes = [m.mask.num_voxels for m in masks]
    for index in sorted(range(len(masks)), key=lambda i: -sizes[i]):
        labels[masks[index].mask.array != 0] = index + 1
    return labels
