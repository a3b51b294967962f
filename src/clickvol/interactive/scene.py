"""What a list of interactions comes to: objects, and their masks, as a pure function of scan, model and list.

A mask is computed when it is asked for and kept under the hash of the interactions that it depends on, so that
undo and redo find it there and a session that is opened again computes what is shown and no more.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.interactive.interactions import (
    AddObject,
    ClickInteraction,
    FreezeObject,
    Interaction,
    Reset,
    digests_of,
)
from clickvol.interactive.packed_mask import EMPTY, PackedMask
from clickvol.io.volume import Mask
from clickvol.predict.scan_predictor import ScanPredictor, never
from clickvol.predict.segmentation import Segmentation
from clickvol.prompts.click import Click, check_any_inside

MAX_OBJECTS = 255
"""A label map of bytes holds no more."""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """An object after some interactions.

    Attributes:
        name: given by the user; may be empty.
        clicks: on it, in order.
        frozen: it cannot change, and the others leave it alone.
        clicked_at: place in the list of its last click; None without one.
        shaped_at: place in the list of what gave it its mask, that click or a freezing after it.
    """

    name: str = ""
    clicks: tuple[Click, ...] = ()
    frozen: bool = False
    clicked_at: int | None = None
    shaped_at: int | None = None


@dataclass(frozen=True, slots=True)
class SessionObject:
    """One object of a session, as others see it.

    Attributes:
        id: from 1; its value in the label map.
        name: given by the user; may be empty.
        clicks: on it, in order.
        frozen: it cannot change, and the others leave it alone.
        num_voxels: of its mask.
        volume_ml: of its mask.
    """

    id: int
    name: str
    clicks: tuple[Click, ...]
    frozen: bool
    num_voxels: int
    volume_ml: float


@dataclass(frozen=True, slots=True)
class Scene:
    """All objects after a list of interactions, without their masks.

    Attributes:
        interactions: the list.
        objects: the first has the id 1.
        digests: a hash for every place in the list, of all interactions up to it.
    """

    interactions: tuple[Interaction, ...]
    objects: tuple[SceneObject, ...]
    digests: tuple[str, ...]

    @classmethod
    def after(cls, interactions: Sequence[Interaction]) -> "Scene":
        """Follow a list of interactions.

        Raises:
            ClickError: when they do not fit together: an object that is not there or frozen, no click inside
                it, too many objects.
        """
        return cls(tuple(interactions), _objects_after(interactions), digests_of(interactions))

    def object(self, object_id: int) -> SceneObject:
        """Return an object.

        Raises:
            ClickError: when it is not there.
        """
        return _object(self.objects, object_id)

    def clicks_at(self, place: int) -> tuple[Click, ...]:
        """Return the clicks on the object that is clicked at a place in the list, up to that click."""
        objects = _objects_after(self.interactions[: place + 1])
        return next(known.clicks for known in objects if known.clicked_at == place)

    def sources(self, place: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the places in the list whose masks go into the mask of a place.

        Args:
            place: in the list, of a click or a freezing.

        Returns:
            Of the object's own mask, for a freezing; and of the objects that were frozen then.
        """
        interaction = self.interactions[place]
        if not isinstance(interaction, ClickInteraction | FreezeObject):
            raise ValueError(f"no mask comes from {interaction.kind}; give the place of a click or a freezing")
        objects = _objects_after(self.interactions[:place])
        shaped_at = objects[interaction.object_id - 1].shaped_at
        own: tuple[int, ...] = ()
        if isinstance(interaction, FreezeObject) and shaped_at is not None:
            own = (shaped_at,)
        return own, _frozen_places(objects, interaction.object_id)


def _objects_after(interactions: Iterable[Interaction]) -> tuple[SceneObject, ...]:
    objects: tuple[SceneObject, ...] = (SceneObject(),)
    for place, interaction in enumerate(interactions):
        match interaction:
            case ClickInteraction(object_id=object_id):
                known = _object(objects, object_id)
                if known.frozen:
                    raise ClickError(f"object {object_id} is frozen; unfreeze it, or click on another object")
                clicks = (*known.clicks, interaction.click)
                check_any_inside(clicks)
                clicked = replace(known, clicks=clicks, clicked_at=place, shaped_at=place)
                objects = _with(objects, object_id, clicked)
            case FreezeObject(object_id=object_id, frozen=frozen):
                known = _object(objects, object_id)
                # What lies on an earlier frozen object is that one's for good.
                is_cut = frozen and known.shaped_at is not None and _frozen_places(objects, object_id)
                shaped_at = place if is_cut else known.shaped_at
                objects = _with(objects, object_id, replace(known, frozen=frozen, shaped_at=shaped_at))
            case AddObject(name=name):
                if len(objects) == MAX_OBJECTS:
                    raise ClickError(
                        f"there are {MAX_OBJECTS} objects, no more fit in a label map; save, and begin again"
                    )
                objects = (*objects, SceneObject(name))
            case Reset():
                objects = (SceneObject(),)
    return objects


def _object(objects: Sequence[SceneObject], object_id: int) -> SceneObject:
    if not 1 <= object_id <= len(objects):
        raise ClickError(f"there is no object {object_id}; there are 1 to {len(objects)}; add one first")
    return objects[object_id - 1]


def _with(objects: tuple[SceneObject, ...], object_id: int, changed: SceneObject) -> tuple[SceneObject, ...]:
    return (*objects[: object_id - 1], changed, *objects[object_id:])


def _frozen_places(objects: Sequence[SceneObject], but: int) -> tuple[int, ...]:
    """Return where the masks of the frozen objects come from, except one object's."""
    return tuple(
        known.shaped_at
        for object_id, known in enumerate(objects, start=1)
        if known.frozen and known.shaped_at is not None and object_id != but
    )


class SceneMasks:
    """The masks of scenes on one scan; each is computed once.

    Args:
        scan: answers lists of clicks.
    """

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
        """Answer a click of a list, from the clicks on its object up to it.

        Args:
            scene: after the list.
            place: of the click in the list.
            cancelled: asked before every call of the network; True ends the answer.

        Raises:
            CancelledError: when `cancelled` said so.
        """
        digest = scene.digests[place]
        if self._last is None or self._last[0] != digest:
            frozen = [mask for mask in self._packed(scene, scene.sources(place)[1]) if mask.num_voxels]
            exclude_mask = None
            if frozen:
                canvas = np.zeros(self.scan.volume.grid.shape_dhw, dtype=np.uint8)
                for mask in frozen:
                    mask.paint(canvas, 1)
                exclude_mask = canvas.view(np.bool_)
            clicks = scene.clicks_at(place)
            background_clicks = [Click(mask.innermost(), foreground=False) for mask in frozen]
            answer = self.scan.predict(
                clicks, exclude_mask=exclude_mask, background_clicks=background_clicks, cancelled=cancelled
            )
            self._last = digest, answer
            self._masks[digest] = PackedMask.of(answer.mask.array)
        return self._last[1]

    def packed(self, scene: Scene, object_id: int) -> PackedMask:
        """Return what an object's click or freezing gave; frozen ones may lie on it since.

        Raises:
            ClickError: when the object is not there.
        """
        place = scene.object(object_id).shaped_at
        return EMPTY if place is None else self._packed(scene, (place,))[0]

    def mask(self, scene: Scene, object_id: int | None) -> Mask:
        """Return the mask of an object without what frozen ones hold, or the label map of all.

        Args:
            scene: after some interactions.
            object_id: which object; None for the label map.

        Returns:
            (D, H, W) uint8 on the scan's grid: 0 and 1; in the label map each object's id, where a later object
            lies on an earlier one and a frozen one on all.

        Raises:
            ClickError: when the object is not there.
        """
        volume = self.scan.volume
        array = np.zeros(volume.grid.shape_dhw, dtype=np.uint8)
        if object_id is None:
            numbers = range(1, len(scene.objects) + 1)
            for number in sorted(numbers, key=lambda number: scene.object(number).frozen):
                self.packed(scene, number).paint(array, number)
        else:
            self._shown(scene, object_id).paint(array, 1)
        return Mask(array, volume.grid)

    def objects(self, scene: Scene) -> tuple[SessionObject, ...]:
        """Describe all objects."""
        described = []
        for number, known in enumerate(scene.objects, start=1):
            count = self._shown(scene, number).num_voxels
            ml = count * self.scan.volume.grid.voxel_volume_mm3 / 1000
            described.append(SessionObject(number, known.name, known.clicks, known.frozen, count, ml))
        return tuple(described)

    def probability(self, scene: Scene, object_id: int) -> NDArray[np.float32]:
        """Return the probability of an object in every voxel: (D, H, W) float32 in [0, 1].

        Raises:
            ClickError: when the object is not there.
        """
        place = scene.object(object_id).clicked_at
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
                own, frozen = scene.sources(place)
                waiting += (*own, *frozen)
        for place in sorted(missing):
            if isinstance(scene.interactions[place], ClickInteraction):
                self.answer(scene, place)
            else:
                self._masks[scene.digests[place]] = self._cut(scene, place)
        return [self._masks[scene.digests[place]] for place in places]

    def _cut(self, scene: Scene, place: int) -> PackedMask:
        """Return the mask of an object that is frozen, without what earlier frozen ones hold."""
        own, frozen = (self._packed(scene, places) for places in scene.sources(place))
        return own[0].without(frozen)

    def _shown(self, scene: Scene, object_id: int) -> PackedMask:
        """Return the mask of an object without what frozen ones hold."""
        frozen = self._packed(scene, _frozen_places(scene.objects, object_id))
        return self.packed(scene, object_id).without(frozen) if frozen else self.packed(scene, object_id)
