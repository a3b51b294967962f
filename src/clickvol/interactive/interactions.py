"""What a user does to a scan: the closed list of interactions, and how many of them count.

Who adds one adds a class, its name in `Interaction` and, where it points at an object, a `prompt` and a case
in `interaction_of`; `scene.py` treats all that are prompts alike.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.mask_operations import MEASURED, Operation
from clickvol.io.labelled_mask import TERMS
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Position, Prompt, Scribble

Triple = tuple[float, float, float]

_MAX_VOXELS = 1 << 31

Overlap = Literal["yield", "take"]
"""Whether an object that meets others leaves them their voxels or takes them."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _OnObject(_Frozen):
    """Where its mask meets other objects it yields, or takes their voxels; never those of frozen ones."""

    object_id: int
    overlap: Overlap = "yield"


class ClickInteraction(_OnObject):
    """A click on an object: voxels (i, j, k) of the file as stored, or RAS millimetres."""

    kind: Literal["click"] = "click"
    space: Literal["ijk", "ras"]
    position: Triple
    positive: bool

    @classmethod
    def at(cls, point: VoxelPoint | WorldPointRAS, *, positive: bool, object_id: int = 1) -> "ClickInteraction":
        """Describe a click as it was given."""
        space, position = _numbers_of(point)
        return cls(object_id=object_id, space=space, position=position, positive=positive)

    @property
    def prompt(self) -> Click:
        """The click alone."""
        return Click.at(self.position, space=self.space, foreground=self.positive)


class LineInteraction(_OnObject):
    """The longest diameter of an object, by its two ends."""

    kind: Literal["line"] = "line"
    space: Literal["ijk", "ras"]
    first: Triple
    second: Triple

    @property
    def prompt(self) -> Line:
        """The line alone."""
        return Line(_position(self.space, self.first), _position(self.space, self.second))


class BoxInteraction(_OnObject):
    """A box around an object, or around what does not belong to it, by two corners; both are in it."""

    kind: Literal["box"] = "box"
    space: Literal["ijk", "ras"]
    first: Triple
    second: Triple
    positive: bool

    @property
    def prompt(self) -> Box:
        """The box alone."""
        return Box(_position(self.space, self.first), _position(self.space, self.second), self.positive)


class DrawnVoxels(_Frozen):
    """Voxels of the scan: a box, and in it eight to a byte in (d, h, w) order, zlib, base64."""

    start_dhw: tuple[int, int, int]
    shape_dhw: tuple[int, int, int]
    bits: str

    @classmethod
    def of(cls, mask: PackedMask) -> "DrawnVoxels":
        """Describe a mask."""
        box = VoxelBox.of((0, 0, 0), (0, 0, 0)) if mask.box is None else mask.box
        bits = base64.b64encode(mask.bits).decode()
        return cls(start_dhw=box.start_dhw, shape_dhw=box.shape_dhw, bits=bits)

    @model_validator(mode="after")
    def _holds_its_voxels(self) -> "DrawnVoxels":
        if min(*self.start_dhw, *self.shape_dhw) < 0 or int(np.prod(self.shape_dhw)) > _MAX_VOXELS:
            raise ValueError("the box of a drawing is no box; give start and shape of its voxels")
        wanted = -(-int(np.prod(self.shape_dhw)) // 8)
        opened = zlib.decompressobj()
        try:
            data = opened.decompress(base64.b64decode(self.bits, validate=True), wanted + 1)
        except (ValueError, zlib.error) as error:
            raise ValueError("the voxels of a drawing are no zlib in base64") from error
        if len(data) != wanted:
            raise ValueError(f"a drawing holds {len(data)} bytes, its box asks for {wanted}")
        return self

    @property
    def mask(self) -> PackedMask:
        """The voxels as a mask."""
        if 0 in self.shape_dhw:
            return PackedMask(None, b"", 0)
        box = VoxelBox.of(self.start_dhw, np.add(self.start_dhw, self.shape_dhw))
        packed = PackedMask(box, base64.b64decode(self.bits), 0)
        inner = PackedMask.of(packed.in_box())
        # The bounding box may be smaller than the one that was written.
        return inner.shift(box.start_dhw)


DrawnKind = Literal["scribble", "lasso", "given_mask"]
_DRAWINGS: dict[DrawnKind, type[Scribble | Lasso | GivenMask]] = {
    "scribble": Scribble,
    "lasso": Lasso,
    "given_mask": GivenMask,
}


class DrawnInteraction(_OnObject):
    """A scribble, the area of a lasso, or a mask to correct."""

    kind: DrawnKind
    voxels: DrawnVoxels
    positive: bool = True

    @model_validator(mode="after")
    def _is_signed_where_it_can_be(self) -> "DrawnInteraction":
        if self.kind == "given_mask" and not self.positive:
            raise ValueError("a given mask is the object; what it is not is a lasso or a brush")
        return self

    @property
    def prompt(self) -> Scribble | Lasso | GivenMask:
        """The drawing alone."""
        return _DRAWINGS[self.kind](self.voxels.mask, self.positive)


class BrushEdit(_OnObject):
    """Voxels painted into an object's mask, or out of it; no network is asked, and later answers keep them."""

    kind: Literal["brush"] = "brush"
    voxels: DrawnVoxels
    added: bool

    @classmethod
    def of(cls, voxels: NDArray[np.generic], *, added: bool, object_id: int = 1) -> "BrushEdit":
        """Describe what was painted: (D, H, W), where it is not 0."""
        return cls(object_id=object_id, voxels=DrawnVoxels.of(PackedMask.of(voxels)), added=added)


class ChooseCandidate(_OnObject):
    """One of the masks that the last answer offered, instead of the first; later prompts correct it."""

    kind: Literal["choose_candidate"] = "choose_candidate"
    number: int = Field(ge=0)


class MaskOperation(_OnObject):
    """An object's mask changed as a whole (`mask_operations.py`); later answers are changed in the same way."""

    kind: Literal["mask_operation"] = "mask_operation"
    operation: Operation
    mm: float = Field(default=0.0, ge=0, le=50)

    @model_validator(mode="after")
    def _has_its_distance(self) -> "MaskOperation":
        if (self.operation in MEASURED) != (self.mm > 0):
            raise ValueError("mm is the distance of smooth, grow and shrink, above 0; the others take none")
        return self


PromptInteraction = ClickInteraction | LineInteraction | BoxInteraction | DrawnInteraction
"""Those that point at an object, each with a `prompt`."""


class EditPrompt(_OnObject):
    """An earlier prompt of an object replaced by another one, or removed; the mask is answered anew.

    A candidate that was chosen after that prompt is chosen no more: it answered other prompts.
    """

    kind: Literal["edit_prompt"] = "edit_prompt"
    place: int = Field(ge=0, description="of the prompt among the interactions since the last reset, from 0")
    by: Annotated[PromptInteraction, Field(discriminator="kind")] | None = None

    @model_validator(mode="after")
    def _stays_on_its_object(self) -> "EditPrompt":
        if self.by is not None and (self.by.object_id != self.object_id or self.by.kind == "given_mask"):
            raise ValueError("a prompt is replaced by one on the same object, and by no given mask; add that")
        return self


EditInteraction = BrushEdit | MaskOperation
"""Those that change a mask without asking the network; later answers keep what they did."""

Shaping = PromptInteraction | EditInteraction | ChooseCandidate | EditPrompt
"""Those that change the mask of their object."""


def interaction_of(prompt: Prompt, *, object_id: int = 1) -> PromptInteraction:
    """Describe a prompt as it was given."""
    match prompt:
        case Click():
            return ClickInteraction.at(prompt.position, positive=prompt.foreground, object_id=object_id)
        case Line() | Box():
            space, first = _numbers_of(prompt.first)
            other, second = _numbers_of(prompt.second)
            if space != other:
                raise ValueError("both ends of a line or box are voxels, or both places in the patient")
            if isinstance(prompt, Line):
                return LineInteraction(object_id=object_id, space=space, first=first, second=second)
            sign = prompt.foreground
            return BoxInteraction(object_id=object_id, space=space, first=first, second=second, positive=sign)
        case Scribble() | Lasso() | GivenMask():
            kind = next(name for name, drawing in _DRAWINGS.items() if isinstance(prompt, drawing))
            voxels = DrawnVoxels.of(prompt.voxels)
            return DrawnInteraction(object_id=object_id, kind=kind, voxels=voxels, positive=prompt.foreground)


def check_on_grid(interaction: Shaping, grid: VolumeGrid) -> None:
    """Check that an interaction can be used on a scan; ClickError when it is outside, empty or not finite."""
    match interaction:
        case EditPrompt(by=by):
            if by is not None:
                check_on_grid(by, grid)
        case ChooseCandidate() | MaskOperation():
            return
        case BrushEdit():
            Scribble(interaction.voxels.mask).check(grid)
        case ClickInteraction():
            interaction.prompt.world(grid)
        case _:
            interaction.prompt.check(grid)


def _numbers_of(point: Position) -> tuple[Literal["ijk", "ras"], Triple]:
    return ("ijk", point.to_ijk()) if isinstance(point, VoxelPoint) else ("ras", (point.x, point.y, point.z))


def _position(space: Literal["ijk", "ras"], numbers: Triple) -> Position:
    return VoxelPoint.from_ijk(*numbers) if space == "ijk" else WorldPointRAS(*numbers)


class AddObject(_Frozen):
    """One object more."""

    kind: Literal["add_object"] = "add_object"
    name: str = ""


class DescribeObject(_Frozen):
    """What an object is called and means, and its colour; what is None stays as it is, and "" is none."""

    kind: Literal["describe_object"] = "describe_object"
    object_id: int
    name: str | None = None
    term: str | None = None
    colour: str | None = Field(default=None, pattern=r"^(#[0-9a-f]{6})?$")

    @model_validator(mode="after")
    def _has_a_term_there_is(self) -> "DescribeObject":
        if self.term and self.term not in TERMS:
            raise ValueError(f"there is no term {self.term!r}; give the code of one of GET /api/terms")
        return self


class DeleteObject(_Frozen):
    """An object taken away with its mask and prompts; the others keep their numbers."""

    kind: Literal["delete_object"] = "delete_object"
    object_id: int


class FreezeObject(_Frozen):
    """An object made unchangeable, or changeable again; it counts for what comes later in the list."""

    kind: Literal["freeze_object"] = "freeze_object"
    object_id: int
    frozen: bool


class Reset(_Frozen):
    """All objects and clicks forgotten."""

    kind: Literal["reset"] = "reset"


class Move(_Frozen):
    """One interaction back, or one forward again."""

    kind: Literal["undo", "redo"]


Interaction = Annotated[
    Shaping | AddObject | DescribeObject | DeleteObject | FreezeObject | Reset, Field(discriminator="kind")
]


@dataclass(frozen=True, slots=True)
class History:
    """A list of interactions and an index; nothing else is the state of a session.

    Attributes:
        interactions: all, those that were undone at the end.
        index: how many count.
    """

    interactions: tuple[Interaction, ...] = ()
    index: int = 0

    @property
    def current(self) -> tuple[Interaction, ...]:
        """The interactions that count."""
        return self.interactions[: self.index]

    @property
    def can_undo(self) -> bool:
        """Whether there is an interaction to undo."""
        return self.index > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone interaction."""
        return self.index < len(self.interactions)

    @property
    def tag(self) -> str:
        """A short hash of the interactions that count: with the same scan and model, the same masks."""
        return digests_of(self.current)[-1][:16] if self.index else "empty"

    def after(self, *steps: Interaction | Move) -> "History":
        """Return the history after some steps; an interaction ends what was undone, a move too far stays."""
        interactions, index = list(self.interactions), self.index
        for step in steps:
            if not isinstance(step, Move):
                interactions[index:] = [step]
            index += -1 if isinstance(step, Move) and step.kind == "undo" else 1
            index = min(max(index, 0), len(interactions))
        return History(tuple(interactions), index)


def digests_of(interactions: Iterable[Interaction]) -> tuple[str, ...]:
    """Return a hash for every place in a list: of the interactions up to it and including it."""
    running, digests = hashlib.sha256(), []
    for interaction in interactions:
        running.update(interaction.model_dump_json().encode() + b"\n")
        digests.append(running.hexdigest())
    return tuple(digests)
