"""A mask with a name, one object of those that were clicked in a scan, and what it can be, in SNOMED CT."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
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


# Terms for DICOM SEG and RTSTRUCT (PS3.16, CID 7150 to 7166).
_ABNORMAL = ("49755003", "Morphologically Abnormal Structure")
_ANATOMICAL = ("123037004", "Anatomical Structure")
_TISSUE = ("85756007", "Tissue")

_MEANINGS = {
    _ABNORMAL: {
        "108369006": "Neoplasm",
        "86049000": "Neoplasm, Primary",
        "14799000": "Neoplasm, Secondary",
        "52988006": "Lesion",
        "4147007": "Mass",
        "27925004": "Nodule",
        "367643001": "Cyst",
        "6574001": "Necrosis",
        "79654002": "Edema",
        "50960005": "Hemorrhage",
    },
    _ANATOMICAL: {
        "59441001": "Lymph node",
        "12738006": "Brain",
        "39607008": "Lung",
        "80891009": "Heart",
        "10200004": "Liver",
        "64033007": "Kidney",
        "78961009": "Spleen",
        "15776009": "Pancreas",
        "69695003": "Stomach",
        "71854001": "Colon",
        "34402009": "Rectum",
        "89837001": "Urinary bladder",
        "41216001": "Prostate",
        "35039007": "Uterus",
        "69748006": "Thyroid gland",
        "23451007": "Adrenal gland",
    },
    _TISSUE: {"272673000": "Bone", "91727004": "Skeletal muscle", "55603005": "Adipose tissue"},
}

TERMS: dict[str, SegmentTerm] = {
    code: SegmentTerm(code, meaning, *category)
    for category, meanings in _MEANINGS.items()
    for code, meaning in meanings.items()
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
