"""Files of the CVPR 2025 challenge "Foundation Models for Interactive 3D Biomedical Image Segmentation".

One .npz per scan: `imgs` (D, H, W), `spacing` in mm, with labels `gts` (D, H, W) of 0, 1, 2, ... where they are
known; prompts `boxes` and `clicks`, one entry per class; the answer is an .npz with `segs` (D, H, W).

The challenge stores prompts as pickled objects, which can run any program when they are read. They are never
read here: prompts come from a JSON file beside the scan, NAME.prompts.json, with the same keys.
"""

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clickvol.errors import ClickvolError, ConfigError
from clickvol.evaluation.methods import Method, Scan
from clickvol.evaluation.simulated_user import BoxPrompt
from clickvol.files.atomic import atomic_path, write_text
from clickvol.files.validation import first_fault
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.challenge import read_challenge_scan
from clickvol.prompts.click import Click

PROMPTS_SUFFIX = ".prompts.json"

Voxel = tuple[int, int, int]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChallengeBox(_Record):
    """A box of one class: first and last slice, and the box on the middle slice; all ends are inside.

    Attributes:
        z_mid_x_min, z_mid_x_max: first and last column.
        z_mid_y_min, z_mid_y_max: first and last row.
    """

    z_min: int = Field(ge=0)
    z_max: int
    z_mid: int
    z_mid_x_min: int = Field(ge=0)
    z_mid_x_max: int
    z_mid_y_min: int = Field(ge=0)
    z_mid_y_max: int

    @model_validator(mode="after")
    def _ends_follow_beginnings(self) -> Self:
        ends = (
            (self.z_min, self.z_mid, self.z_max),
            (self.z_mid_x_min, self.z_mid_x_max),
            (self.z_mid_y_min, self.z_mid_y_max),
        )
        if any(list(numbers) != sorted(numbers) for numbers in ends):
            raise ValueError("a box ends before it begins")
        return self

    def prompt(self) -> BoxPrompt:
        """Return the box as this package has it."""
        start = (self.z_min, self.z_mid_y_min, self.z_mid_x_min)
        stop = (self.z_max + 1, self.z_mid_y_max + 1, self.z_mid_x_max + 1)
        return BoxPrompt(VoxelBox(start, stop), self.z_mid)


class ChallengeClicks(_Record):
    """Clicks of one class inside and beside the object, (z, y, x) voxels, the earlier ones first."""

    fg: tuple[Voxel, ...] = ()
    bg: tuple[Voxel, ...] = ()


class ChallengePrompts(_Record):
    """What is pointed at, one entry per class, class 1 first.

    Attributes:
        clicks_order: "fg" or "bg" for every click; not needed, as answers do not depend on the order.
    """

    boxes: tuple[ChallengeBox, ...] = ()
    clicks: tuple[ChallengeClicks, ...] = ()
    clicks_order: tuple[tuple[Literal["fg", "bg"], ...], ...] = ()

    @model_validator(mode="after")
    def _has_one_entry_per_class(self) -> Self:
        if self.boxes and self.clicks and len(self.boxes) != len(self.clicks):
            raise ValueError(f"there are {len(self.boxes)} boxes but {len(self.clicks)} entries of clicks")
        return self

    @property
    def num_classes(self) -> int:
        """Number of objects that are asked for."""
        return max(len(self.boxes), len(self.clicks))

    def of_class(self, number: int) -> tuple[BoxPrompt | None, list[Click]]:
        """Return box and clicks of a class, from 1; a box begins the clicks with the one at its centre."""
        box = self.boxes[number - 1].prompt() if self.boxes else None
        clicks = [box.click()] if box is not None else []
        if self.clicks:
            given = self.clicks[number - 1]
            clicks += [Click(VoxelPoint.of(voxel)) for voxel in given.fg]
            clicks += [Click(VoxelPoint.of(voxel), foreground=False) for voxel in given.bg]
        return box, clicks


def read_challenge_prompts(path: Path) -> ChallengePrompts:
    """Read the prompts of a scan's .npz from the JSON file beside it; ConfigError without one."""
    sidecar = path.with_name(path.stem + PROMPTS_SUFFIX)
    if not sidecar.is_file():
        raise ConfigError(
            f"{sidecar} is missing; prompts inside an .npz are pickled objects, which are never read: write "
            "boxes and clicks there as JSON"
        )
    try:
        return ChallengePrompts.model_validate_json(sidecar.read_bytes())
    except ValidationError as error:
        raise ConfigError(
            f"{sidecar} cannot be used: {first_fault(error)}; see docs/how-to/evaluate.md"
        ) from error


def write_challenge_prompts(prompts: ChallengePrompts, path: Path) -> None:
    """Write prompts as the JSON file beside a scan's .npz."""
    write_text(path.with_name(path.stem + PROMPTS_SUFFIX), prompts.model_dump_json(indent=1) + "\n")


def answer_challenge(scan_file: Path, answer_file: Path, method: Method) -> list[str]:
    """Answer the prompts beside a scan's .npz and write `segs` (D, H, W), as an entry to the challenge does.

    Classes are answered one by one; where two claim a voxel, the later class has it. A class without an answer
    stays empty, and has a line in what is returned.

    Raises:
        ConfigError, UnreadableVolumeError: when scan or prompts cannot be used.
        OutputError: when the answer cannot be written.
    """
    volume, prompts = read_challenge_scan(scan_file), read_challenge_prompts(scan_file)
    many = prompts.num_classes > np.iinfo(np.uint8).max
    segs = np.zeros(volume.grid.shape_dhw, dtype=np.uint16 if many else np.uint8)
    failures = []
    scan = Scan.blind("cvpr2025", scan_file.stem, volume)
    for number in range(1, prompts.num_classes + 1):
        box, clicks = prompts.of_class(number)
        try:
            mask = method.open_scan(scan)(clicks).mask
        except ClickvolError as error:
            failures.append(f"class {number}: {error}")
            continue
        if box is not None:
            mask = box.cut(mask, clicks)
        segs[mask > 0] = number
    write_challenge_answer(segs, answer_file)
    return failures


def write_challenge_answer(segs: NDArray[np.unsignedinteger[Any]], path: Path) -> None:
    """Write an answer (D, H, W) of class numbers; OutputError when the file cannot be written."""
    with atomic_path(path, ".npz") as temporary:
        np.savez_compressed(temporary, segs=segs)
