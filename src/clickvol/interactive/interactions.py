"""What a user does to a scan: the closed list of interactions, and how many of them count.

Boxes, lines, scribbles, given masks and brush edits join here: a class each, a name in `Interaction`, and
a case in `scene.py`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.prompts.click import Click


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClickInteraction(_Frozen):
    """A click on an object: voxels (i, j, k) of the file as stored, or RAS millimetres."""

    kind: Literal["click"] = "click"
    object_id: int
    space: Literal["ijk", "ras"]
    position: tuple[float, float, float]
    positive: bool

    @classmethod
    def at(cls, point: VoxelPoint | WorldPointRAS, *, positive: bool, object_id: int = 1) -> "ClickInteraction":
        """Describe a click as it was given."""
        if isinstance(point, VoxelPoint):
            return cls(object_id=object_id, space="ijk", position=point.to_ijk(), positive=positive)
        return cls(object_id=object_id, space="ras", position=(point.x, point.y, point.z), positive=positive)

    @property
    def click(self) -> Click:
        """The click alone."""
        return Click.at(self.position, space=self.space, foreground=self.positive)


class AddObject(_Frozen):
    """One object more."""

    kind: Literal["add_object"] = "add_object"
    name: str = ""


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


Interaction = Annotated[ClickInteraction | AddObject | FreezeObject | Reset, Field(discriminator="kind")]


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
