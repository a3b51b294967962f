"""An interactive session: one scan, several objects, any number of clicks, undo and redo.

Its state is a `History`: a list of interactions and an index. What they come to is a pure function of scan,
model and list (`scene.py`), and a record on disk gives the same list again (`record.py`).
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import CancelledError, ConfigError, OutputError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.interactive.interactions import (
    AddObject,
    ClickInteraction,
    DeleteObject,
    DescribeObject,
    FreezeObject,
    History,
    Interaction,
    Move,
    Overlap,
    Reset,
    Shaping,
    check_on_grid,
)
from clickvol.interactive.record import (
    Outcome,
    ReadRecord,
    RecordHeader,
    SessionRecord,
    check_same,
    header_of,
    read_record,
)
from clickvol.interactive.scene import Scene, SceneMasks, SessionObject
from clickvol.io.in_memory import MaskLike, VolumeLike, as_mask
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.predict.scan_predictor import FEATURE_MEMORY_MB, ScanPredictor, never
from clickvol.predict.segmentation import Segmentation
from clickvol.prompts.packed_mask import PackedMask
from clickvol.weights.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Answer:
    """What an interaction came to.

    Attributes:
        seconds: time per stage: "prepare", "encode", "decode" and "paste".
        warnings: what a person should know, one sentence each.
        segmentation: all that the model said; None where nothing was asked of it.
    """

    object_id: int
    num_voxels: int
    volume_ml: float
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    segmentation: Segmentation | None = None


class InteractiveSession:
    """Prompts on one scan. Not for several threads at once.

    Args:
        model: that answers; it takes clicks.
        log_folder: where every session's record goes, begun with its first interaction; None for no records.
        feature_memory_mb: memory for image features (10^6 bytes).
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        log_folder: Path | None = None,
        feature_memory_mb: float = FEATURE_MEMORY_MB,
    ) -> None:
        self._model = model
        self._log_folder = log_folder
        self._feature_memory_mb = feature_memory_mb
        self._masks: SceneMasks | None = None
        self._organ_mask: Mask | Volume | None = None
        self._modality: Modality | None = None
        self._record: SessionRecord | None = None
        self._history = History()

    def set_volume(
        self, volume: VolumeLike, *, modality: Modality | None = None, organ_mask: MaskLike | None = None
    ) -> None:
        """Begin with a scan; what was clicked on an earlier one is forgotten here and kept in its record.

        Args:
            volume: the scan, from `read_volume`; or an image of nibabel or SimpleITK, or a MetaTensor of MONAI.
            modality: "CT" or "MR" where the file does not say it or says it wrongly.
            organ_mask: for a model that takes one (TAGS); values above 0 are organ.

        Raises:
            ConfigError: when the model takes no clicks, or the organ mask cannot be used.
        """
        if organ_mask is not None and not isinstance(organ_mask, Volume):
            organ_mask = as_mask(organ_mask)
        scan = ScanPredictor(
            volume,
            self._model,
            modality=modality,
            organ_mask=organ_mask,
            feature_memory_mb=self._feature_memory_mb,
        )
        self.close()
        self._masks, self._modality, self._organ_mask = SceneMasks(scan), modality, organ_mask
        self._history = History()

    def click(
        self,
        point: VoxelPoint | WorldPointRAS,
        *,
        positive: bool = True,
        object_id: int = 1,
        overlap: Overlap = "yield",
        cancelled: Callable[[], bool] = never,
    ) -> Answer:
        """Add a click to an object and answer all its clicks.

        Args:
            point: a voxel of the scan, or a place in the patient.
            positive: inside the object; False where the object is not.
            object_id: which object.
            overlap: "yield" leaves other objects their voxels, "take" takes them, but for frozen ones.
            cancelled: asked before every call of the network; True ends the click.

        Raises:
            ClickError: when the click is not finite or outside the scan, when there is none inside the object
                yet, or when the object is frozen or not there.
            CancelledError: when `cancelled` said so.
            OutputError: when the record cannot be written. The session is unchanged after each of these.
        """
        click = ClickInteraction.at(point, positive=positive, object_id=object_id)
        return self.add(click.model_copy(update={"overlap": overlap}), cancelled=cancelled)

    def add(self, interaction: Shaping, *, cancelled: Callable[[], bool] = never) -> Answer:
        """Add any interaction that changes the mask of its object, and compute that mask.

        Args:
            interaction: such as `interaction_of(Line(one_end, other_end))`, `BrushEdit.of(voxels, added=True)`
                or `ChooseCandidate(object_id=1, number=2)`.
            cancelled: asked before every call of the network; True ends it.

        Raises:
            ClickError: when it cannot be used on this scan, or the object is frozen or not there.
            CancelledError: when `cancelled` said so.
            OutputError: when the record cannot be written. The session is unchanged after each of these.
        """
        masks = self._opened()
        check_on_grid(interaction, masks.scan.volume.grid)
        history = self._history.after(interaction)
        scene = Scene.after(history.current)
        self._write(interaction)
        try:
            answer, place = None, history.index - 1
            if scene.object(interaction.object_id).answered_at == place:
                answer = masks.answer(scene, place, cancelled)
            mask = masks.packed(scene, interaction.object_id)
        except BaseException as error:
            # So that the record does not repeat it.
            self._note(Outcome(kind="cancelled" if isinstance(error, CancelledError) else "failed"))
            raise
        self._history = history
        seconds = {} if answer is None else answer.seconds
        if self._record is not None:
            spent = round(sum(seconds.values()), 4)
            self._note(Outcome(kind="answered", mask_sha256=mask.sha256(), seconds=spent))
        ml = mask.num_voxels * masks.scan.volume.grid.voxel_volume_mm3 / 1000
        warnings = () if answer is None else answer.warnings
        return Answer(interaction.object_id, mask.num_voxels, ml, seconds, warnings, answer)

    def undo(self) -> bool:
        """Go back by one interaction, at once; False where there is none."""
        return self._move("undo", is_possible=self.can_undo)

    def redo(self) -> bool:
        """Take back an undo, at once; False where there is none."""
        return self._move("redo", is_possible=self.can_redo)

    def reset(self) -> None:
        """Forget all objects and clicks; what was computed of the scan is kept, and undo brings them back."""
        self._apply(Reset())

    def add_object(self, name: str = "") -> int:
        """Begin another object; return its id. ClickError when there are 255 already."""
        self._apply(AddObject(name=name))
        return len(self.scene.objects)

    def describe_object(
        self, object_id: int, *, name: str | None = None, term: str | None = None, colour: str | None = None
    ) -> None:
        """Say what an object is called, which SNOMED term it is, and how it is shown; "" is none, None as is.

        Args:
            object_id: which object.
            name: up to 64 characters.
            term: a code of `clickvol.io.labelled_mask.TERMS`.
            colour: "#rrggbb".

        Raises:
            ClickError: when the object is not there.
        """
        self._apply(DescribeObject(object_id=object_id, name=name, term=term, colour=colour))

    def delete_object(self, object_id: int) -> None:
        """Take an object away; undo brings it back. ClickError when it is frozen or not there."""
        self._apply(DeleteObject(object_id=object_id))

    def freeze_object(self, object_id: int, *, frozen: bool = True) -> None:
        """Make an object unchangeable: others leave its voxels out, and it counts as background for them.

        Raises:
            ClickError: when the object is not there.
        """
        if self.scene.object(object_id).frozen != frozen:
            self._apply(FreezeObject(object_id=object_id, frozen=frozen))

    def mask(self, object_id: int | None = None) -> Mask:
        """Return the mask of an object, or (None) the label map of all.

        Returns:
            (D, H, W) uint8 on the scan's grid: 0 and 1; in the label map each object's id. No voxel is in two
            objects.

        Raises:
            ClickError: when the object is not there.
        """
        return self._opened().mask(self.scene, object_id)

    @property
    def shown_masks(self) -> dict[int, PackedMask]:
        """The mask of every object by its id, as it is shown and saved; no voxel is in two of them."""
        masks, scene = self._opened(), self.scene
        return {number: masks.shown(scene, number) for number in scene.object_ids}

    def probability(self, object_id: int = 1) -> NDArray[np.float32]:
        """Return the probability of an object in every voxel: (D, H, W) float32 in [0, 1]."""
        return self._opened().probability(self.scene, object_id)

    def resume(self, log: Path) -> None:
        """Go on with a record, and write to it; nothing is computed before it is asked for.

        Raises:
            ConfigError: when the record is of another scan or model, damaged, or in use.
        """
        header, record = self._header(), read_record(log)
        check_same(header, record)
        writer = SessionRecord(log, record.num_bytes)
        self.close()
        self._history, self._record = record.history, writer

    def insert(self, record: ReadRecord) -> None:
        """Go on with a copy of another session's interactions, after a reset; nothing is computed.

        Raises:
            ConfigError: when it is of another scan or model.
            OutputError: when the record of this session cannot be written; the session is unchanged then.
        """
        check_same(self._header(), record)
        history = record.history
        undone = [Move(kind="undo")] * (len(history.interactions) - history.index)
        self._apply(*([Reset()] if self.can_undo else []), *history.interactions, *undone)

    def close(self) -> None:
        """End the record; it can be resumed."""
        if self._record is not None:
            self._record.close()
            self._record = None

    @property
    def objects(self) -> tuple[SessionObject, ...]:
        """All objects, by id."""
        return self._opened().objects(self.scene)

    @property
    def scan(self) -> ScanPredictor:
        """The scan, which answers other lists of clicks as well."""
        return self._opened().scan

    @property
    def scene(self) -> Scene:
        """What the interactions that count come to."""
        return Scene.after(self._history.current)

    @property
    def scene_masks(self) -> SceneMasks:
        """The masks and answers of any scene on the scan."""
        return self._opened()

    @property
    def history(self) -> History:
        """The interactions, and how many count."""
        return self._history

    @property
    def can_undo(self) -> bool:
        """Tell whether there is an interaction to undo."""
        return self._history.can_undo

    @property
    def can_redo(self) -> bool:
        """Tell whether there is an undone interaction."""
        return self._history.can_redo

    @property
    def log_path(self) -> Path | None:
        """The record; None before the first interaction, and where none is written."""
        return None if self._record is None else self._record.path

    @property
    def memory_bytes(self) -> int:
        """Memory of features and masks, without the scan."""
        return 0 if self._masks is None else self._masks.num_bytes

    def _opened(self) -> SceneMasks:
        if self._masks is None:
            raise ConfigError("the session has no scan; call set_volume first")
        return self._masks

    def _move(self, kind: Literal["undo", "redo"], *, is_possible: bool) -> bool:
        self._opened()
        if is_possible:
            self._apply(Move(kind=kind))
        return is_possible

    def _apply(self, *steps: Interaction | Move) -> None:
        """Add interactions whose masks can wait, or move the index."""
        self._opened()
        history = self._history.after(*steps)
        Scene.after(history.interactions)
        self._write(*steps)
        self._history = history

    def _header(self) -> RecordHeader:
        volume = self._opened().scan.volume
        return header_of(volume, self._model, modality=self._modality, organ_mask=self._organ_mask)

    def _write(self, *lines: Interaction | Move) -> None:
        """Append to the record, which begins with the first interaction."""
        if self._record is None and self._log_folder is not None:
            self._record = SessionRecord.begin(self._log_folder, self._header())
        if self._record is not None:
            self._record.append(*lines)

    def _note(self, outcome: Outcome) -> None:
        """Append what became of a click; where there is no room for it, the click counts all the same."""
        if self._record is not None:
            with contextlib.suppress(OutputError):
                self._record.append(outcome)
