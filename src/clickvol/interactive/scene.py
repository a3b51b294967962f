"""What a list of interactions comes to: objects, and their masks, as a pure function of scan, model and list.

A mask is computed when it is asked for and kept under the hash of the interactions that it depends on, so that
undo and redo find it there and a session that is opened again computes what is shown and no more.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.interactive.interactions import (
    AddObject,
    BrushEdit,
    ChooseCandidate,
    DeleteObject,
    DescribeObject,
    EditInteraction,
    EditPrompt,
    FreezeObject,
    Interaction,
    MaskOperation,
    PromptInteraction,
    Reset,
    Shaping,
    digests_of,
)
from clickvol.interactive.mask_operations import operated
from clickvol.io.volume import Mask
from clickvol.predict.scan_predictor import ScanPredictor, never
from clickvol.predict.segmentation import Segmentation
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import EMPTY, PackedMask
from clickvol.prompts.spatial import GivenMask, Prompt, check_any_prompt_inside

MAX_OBJECTS = 255
"""A label map of bytes holds no more."""


@dataclass(frozen=True, slots=True)
class _Object:
    name: str = ""
    term: str = ""
    colour: str = ""
    frozen: bool = False
    prompts: tuple[Prompt, ...] = ()
    prompted_at: tuple[int, ...] = ()

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks among the prompts."""
        return tuple(prompt for prompt in self.prompts if isinstance(prompt, Click))


@dataclass(frozen=True, slots=True)
class SceneObject(_Object):
    """An object after some interactions.

    Attributes:
        name: given by the user; may be empty.
        term: code of what it is, of `io.labelled_mask.TERMS`; "" for none.
        colour: "#rrggbb"; "" for the one of its number.
        frozen: it cannot change, and the others leave it alone.
        prompts: on it, in order.
        prompted_at: their places in the list.
        is_deleted: it is there no more; its number is given to no other one.
        answered_at: place in the list of its last prompt or of what edited one; None without prompts.
        chosen_at: place of the candidate that its later prompts correct; None where none was chosen.
        edited_at: places of the brush edits and operations that stand.
        shaped_at: place in the list of what gave it its mask: a prompt, an edit, a choice or a freezing.
    """

    is_deleted: bool = False
    answered_at: int | None = None
    chosen_at: int | None = None
    edited_at: tuple[int, ...] = ()
    shaped_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionObject(_Object):
    """An object as others see it: with its value in the label map, from 1, and the voxels and ml of its mask.

    `prompted_at` counts from the last reset: by it a prompt is edited.
    """

    id: int
    num_voxels: int
    volume_ml: float


@dataclass(frozen=True, slots=True)
class Scene:
    """All objects after a list of interactions, without their masks."""

    interactions: tuple[Interaction, ...]
    objects: tuple[SceneObject, ...]
    digests: tuple[str, ...]

    @classmethod
    def after(cls, interactions: Sequence[Interaction]) -> "Scene":
        """Follow a list of interactions; ClickError when they do not fit together: no such object, frozen."""
        return cls(tuple(interactions), _objects_after(interactions), digests_of(interactions))

    def object(self, object_id: int) -> SceneObject:
        """Return an object; ClickError when it is not there."""
        return _object(self.objects, object_id)

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The numbers of the objects, without those that were deleted."""
        return tuple(number for number, known in enumerate(self.objects, start=1) if not known.is_deleted)

    def asked_at(self, place: int) -> SceneObject:
        """Return the object that the interaction of a place acts on, with what counts for its mask there."""
        return _object(_objects_after(self.interactions[: place + 1]), self._giving_a_mask(place).object_id)

    def _giving_a_mask(self, place: int) -> Shaping | FreezeObject:
        interaction = self.interactions[place]
        if not isinstance(interaction, Shaping | FreezeObject):
            raise ValueError(f"no mask comes from {interaction.kind}; give the place of one on an object")
        return interaction

    def sources(self, place: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the places in the list whose masks go into that of a place with an interaction on an object.

        Of the object's own: for a prompt or its edit a chosen candidate, for the others the mask before. And of
        the objects whose voxels it leaves alone: all others for what yields, the frozen ones for what takes,
        those that lie on it for a freezing.
        """
        interaction = self._giving_a_mask(place)
        objects = _objects_after(self.interactions[:place])
        known = objects[interaction.object_id - 1]
        at = known.shaped_at
        if isinstance(interaction, PromptInteraction | EditPrompt):
            at = self.asked_at(place).chosen_at
        if isinstance(interaction, FreezeObject):
            others = _places_above(objects, interaction.object_id)
        else:
            others = _places(objects, interaction.object_id, frozen_only=interaction.overlap == "take")
        return () if at is None else (at,), others

    def frozen_sources(self, place: int) -> tuple[int, ...]:
        """Return the places whose masks are those of the objects that were frozen before a place."""
        objects = _objects_after(self.interactions[:place])
        return tuple(
            at for at in self.sources(place)[1] if any(o.frozen and o.shaped_at == at for o in objects)
        )

    def places_above(self, object_id: int) -> tuple[int, ...]:
        """Return the places whose masks lie on that of an object: frozen ones, and what took voxels since."""
        return _places_above(self.objects, object_id)


def _objects_after(interactions: Iterable[Interaction]) -> tuple[SceneObject, ...]:
    objects: tuple[SceneObject, ...] = (SceneObject(),)
    begun_at = 0
    for place, interaction in enumerate(interactions):
        match interaction:
            case FreezeObject(object_id=object_id, frozen=frozen):
                known = _object(objects, object_id)
                # What another one holds is that one's for good.
                is_cut = frozen and known.shaped_at is not None and _places_above(objects, object_id)
                shaped_at = place if is_cut else known.shaped_at
                objects = _with(objects, object_id, replace(known, frozen=frozen, shaped_at=shaped_at))
            case AddObject(name=name):
                if len(objects) == MAX_OBJECTS:
                    raise ClickError(
                        f"there are {MAX_OBJECTS} objects, no more fit in a label map; save, and begin again"
                    )
                objects = (*objects, SceneObject(name))
            case DescribeObject(object_id=object_id):
                changes = interaction.model_dump(include={"name", "term", "colour"}, exclude_none=True)
                objects = _with(objects, object_id, replace(_object(objects, object_id), **changes))
            case DeleteObject(object_id=object_id):
                _changeable(objects, object_id)
                objects = _with(objects, object_id, SceneObject(is_deleted=True))
            case Reset():
                objects, begun_at = (SceneObject(),), place + 1
            case EditPrompt(object_id=object_id):
                edited = _with_edited_prompt(_changeable(objects, object_id), interaction, place, begun_at)
                objects = _with(objects, object_id, edited)
            case _:
                known = _changeable(objects, interaction.object_id)
                objects = _with(objects, interaction.object_id, _shaped(known, interaction, place))
    return objects


def _changeable(objects: Sequence[SceneObject], object_id: int) -> SceneObject:
    known = _object(objects, object_id)
    if known.frozen:
        raise ClickError(f"object {object_id} is frozen; unfreeze it, or click on another object")
    return known


def _shaped(
    known: SceneObject, interaction: PromptInteraction | EditInteraction | ChooseCandidate, place: int
) -> SceneObject:
    match interaction:
        case BrushEdit() | MaskOperation():
            return replace(known, edited_at=(*known.edited_at, place), shaped_at=place)
        case ChooseCandidate():
            if known.answered_at is None:
                raise ClickError("there is no answer to choose a candidate of; click inside the object first")
            return replace(known, chosen_at=place, edited_at=(), shaped_at=place)
    prompts, places = (*known.prompts, interaction.prompt), (*known.prompted_at, place)
    if known.chosen_at is None:
        check_any_prompt_inside(prompts)
    shaped = replace(known, prompts=prompts, prompted_at=places, answered_at=place, shaped_at=place)
    if isinstance(prompts[-1], GivenMask):
        # A mask begins anew: what was said before led to another one.
        return replace(shaped, prompts=prompts[-1:], prompted_at=(place,), chosen_at=None, edited_at=())
    return shaped


def _with_edited_prompt(known: SceneObject, edit: EditPrompt, place: int, begun_at: int) -> SceneObject:
    """Return an object with a prompt replaced or removed; without any left, what was painted is left."""
    edited_place = edit.place + begun_at
    if edited_place not in known.prompted_at:
        raise ClickError(
            f"object {edit.object_id} has no prompt {edit.place} now; see the state for which it has"
        )
    at = known.prompted_at.index(edited_place)
    by = () if edit.by is None else (edit.by.prompt,)
    prompts = (*known.prompts[:at], *by, *known.prompts[at + 1 :])
    places = tuple(each for each in known.prompted_at if by or each != edited_place)
    chosen_at = None if known.chosen_at is None or edited_place < known.chosen_at else known.chosen_at
    if prompts and chosen_at is None:
        check_any_prompt_inside(prompts)
    return replace(
        known,
        prompts=prompts,
        prompted_at=places,
        answered_at=place if prompts else None,
        chosen_at=chosen_at,
        shaped_at=place,
    )


def _object(objects: Sequence[SceneObject], object_id: int) -> SceneObject:
    if not 1 <= object_id <= len(objects):
        raise ClickError(f"there is no object {object_id}; there are 1 to {len(objects)}; add one first")
    if objects[object_id - 1].is_deleted:
        raise ClickError(f"object {object_id} was deleted; undo brings it back, or add another one")
    return objects[object_id - 1]


def _with(objects: tuple[SceneObject, ...], object_id: int, changed: SceneObject) -> tuple[SceneObject, ...]:
    return (*objects[: object_id - 1], changed, *objects[object_id:])


def _places(objects: Sequence[SceneObject], but: int, *, frozen_only: bool) -> tuple[int, ...]:
    """Return where the masks of the other objects come from, or those of the frozen ones among them."""
    return tuple(
        known.shaped_at
        for object_id, known in enumerate(objects, start=1)
        if known.shaped_at is not None and object_id != but and (known.frozen or not frozen_only)
    )


def _places_above(objects: Sequence[SceneObject], object_id: int) -> tuple[int, ...]:
    """Return where the masks come from that lie on an object's: frozen ones, and those shaped later."""
    known = objects[object_id - 1]
    if known.frozen or known.shaped_at is None:
        return ()
    frozen = _places(objects, object_id, frozen_only=True)
    others = _places(objects, object_id, frozen_only=False)
    return tuple(place for place in others if place in frozen or place > known.shaped_at)


class SceneMasks:
    """The masks of scenes on one scan; each is computed once."""

    def __init__(self, scan: ScanPredictor) -> None:
        self.scan = scan
        self._masks: dict[str, PackedMask] = {}
        self._last: tuple[str, Segmentation] | None = None

    @property
    def num_bytes(self) -> int:
        """Memory of features, masks and the last answer, without the scan."""
        last = None if self._last is None else self._last[1]
        last_bytes = 0 if last is None else last.probability_in_box.nbytes + last.mask.array.nbytes
        return self.scan.feature_bytes + sum(len(mask.bits) for mask in self._masks.values()) + last_bytes

    def answer(self, scene: Scene, place: int, cancelled: Callable[[], bool] = never) -> Segmentation:
        """Answer the prompt of a place in a list, from those on its object up to it, without brush edits.

        Raises:
            ClickError: when a prompt cannot be used on this scan.
            CancelledError: when `cancelled`, which is asked before every call of the network, said so.
        """
        digest = scene.digests[place]
        if self._last is None or self._last[0] != digest:
            own, other_places = scene.sources(place)
            others = [mask for mask in self._packed(scene, other_places) if mask.num_voxels]
            frozen = [mask for mask in self._packed(scene, scene.frozen_sources(place)) if mask.num_voxels]
            exclude_mask = None
            if others:
                exclude_mask = others[0].full(self.scan.volume.grid.shape_dhw)
                for mask in others[1:]:
                    mask.paint(exclude_mask, 1)
            asked = scene.asked_at(place)
            prompts = asked.prompts
            # A chosen candidate stands for all that was said before it.
            chosen = [GivenMask(mask) for mask in self._packed(scene, own) if mask.num_voxels]
            if chosen:
                since = zip(asked.prompts, asked.prompted_at, strict=True)
                prompts = (*chosen, *(prompt for prompt, at in since if at > own[0]))
            background_clicks = [Click(mask.innermost(), foreground=False) for mask in frozen]
            answer = self.scan.predict(
                prompts, exclude_mask=exclude_mask, background_clicks=background_clicks, cancelled=cancelled
            )
            self._last = digest, answer
            packed = PackedMask.of(answer.mask.array, within=answer.probability_box)
            edited = self._edited(scene, place, packed)
            self._masks[digest] = edited.without(others) if others else edited
        return self._last[1]

    def packed(self, scene: Scene, object_id: int) -> PackedMask:
        """Return what the last interaction on an object gave; others may lie on it since."""
        place = scene.object(object_id).shaped_at
        return EMPTY if place is None else self._packed(scene, (place,))[0]

    def shown(self, scene: Scene, object_id: int) -> PackedMask:
        """Return the mask of an object without what others took of it: what is shown, measured and saved."""
        mask = self.packed(scene, object_id)
        above = scene.places_above(object_id)
        return mask.without(self._packed(scene, above)) if above and mask.num_voxels else mask

    def mask(self, scene: Scene, object_id: int | None) -> Mask:
        """Return the mask of an object without what others took of it, or (None) the label map of all.

        Returns:
            (D, H, W) uint8 on the scan's grid: 0 and 1; in the label map each object's id. No voxel is in two
            objects' masks, so both say the same.
        """
        volume = self.scan.volume
        array = np.zeros(volume.grid.shape_dhw, dtype=np.uint8)
        if object_id is None:
            for number in scene.object_ids:
                self.shown(scene, number).paint(array, number)
        else:
            self.shown(scene, object_id).paint(array, 1)
        return Mask(array, volume.grid)

    def objects(self, scene: Scene) -> tuple[SessionObject, ...]:
        """Describe all objects."""
        begun_at = max((n + 1 for n, i in enumerate(scene.interactions) if isinstance(i, Reset)), default=0)
        described = []
        for number in scene.object_ids:
            known, count = scene.object(number), self.shown(scene, number).num_voxels
            said = {field.name: getattr(known, field.name) for field in fields(_Object)}
            said["prompted_at"] = tuple(place - begun_at for place in known.prompted_at)
            ml = count * self.scan.volume.grid.voxel_volume_mm3 / 1000
            described.append(SessionObject(**said, id=number, num_voxels=count, volume_ml=ml))
        return tuple(described)

    def probability(self, scene: Scene, object_id: int) -> NDArray[np.float32]:
        """Return the probability of an object in every voxel: (D, H, W) float32 in [0, 1]."""
        place = scene.object(object_id).answered_at
        if place is None:
            return np.zeros(self.scan.volume.grid.shape_dhw, dtype=np.float32)
        return self.answer(scene, place).probability()

    def _packed(self, scene: Scene, places: Sequence[int]) -> list[PackedMask]:
        """Return the masks of places in a list, after those that they depend on, the earliest first."""
        missing: set[int] = set()
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            if place not in missing and scene.digests[place] not in self._masks:
                missing.add(place)
                own, others = scene.sources(place)
                waiting += (*own, *others)
        for place in sorted(missing):
            self._compute(scene, place)
        return [self._masks[scene.digests[place]] for place in places]

    def _compute(self, scene: Scene, place: int) -> None:
        """Compute the mask of a place; those that it depends on are there."""
        interaction = scene.interactions[place]
        if scene.asked_at(place).answered_at == place:
            self.answer(scene, place)
            return
        own, others = (self._packed(scene, places) for places in scene.sources(place))
        before = own[0] if own else EMPTY
        match interaction:
            case BrushEdit() | MaskOperation():
                mask = self._after_edit(before, interaction)
            case EditPrompt():
                mask = self._edited(scene, place, EMPTY)  # its last prompt was removed
            case ChooseCandidate(number=number):
                mask = self._candidate(scene, place, number)
            case _:
                mask = before  # frozen as it is
        self._masks[scene.digests[place]] = mask.without(others)

    def _candidate(self, scene: Scene, place: int, number: int) -> PackedMask:
        answered_at = scene.asked_at(place).answered_at
        if answered_at is None:
            raise ClickError("there is no answer to choose a candidate of; click inside the object first")
        candidates = self.answer(scene, answered_at).candidates
        if number >= len(candidates):
            raise ClickError(
                f"there is no candidate {number}; the last answer offers {len(candidates)}, from 0"
            )
        return candidates[number].packed

    def _edited(self, scene: Scene, place: int, mask: PackedMask) -> PackedMask:
        """Return the answer of a place with the brush edits and operations that stand there."""
        for edited_at in scene.asked_at(place).edited_at:
            edit = scene.interactions[edited_at]
            if isinstance(edit, EditInteraction):
                # What cannot be done to a later answer, such as filling between slices, is not needed there.
                with contextlib.suppress(ClickError):
                    mask = self._after_edit(mask, edit)
        return mask

    def _after_edit(self, mask: PackedMask, edit: EditInteraction) -> PackedMask:
        if isinstance(edit, MaskOperation):
            return operated(mask, edit.operation, edit.mm, self.scan.volume.grid)
        return mask.with_change(edit.voxels.mask, added=edit.added)
