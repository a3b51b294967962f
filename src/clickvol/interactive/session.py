"""An interactive session: one scan, several objects, any number of clicks, undo and redo.

What is known is a `SessionState`, which never changes; every step makes a new one from the one before, so that
undo and redo are a list of states, and a log of the steps gives the same states again.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import CancelledError, ClickError, ConfigError, OutputError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.interactive.packed_mask import PackedMask
from clickvol.interactive.session_history import history_of
from clickvol.interactive.session_log import (
    AddStep,
    ClickStep,
    FreezeStep,
    LogHeader,
    Outcome,
    PlainStep,
    SessionLog,
    Step,
    check_same,
    header_of,
    now,
    outcome_of,
    read_log,
    step_of_click,
)
from clickvol.interactive.session_state import ObjectState, SessionObject, SessionState, innermost
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.predict.patch_predictor import never
from clickvol.predict.scan_predictor import FEATURE_MEMORY_MB, ScanPredictor
from clickvol.predict.segmentation import Segmentation
from clickvol.prompts.click import Click, check_any_inside
from clickvol.weights.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Answer:
    """What a click came to.

    Attributes:
        object_id: that was clicked.
        num_voxels: of its mask now.
        volume_ml: of its mask now.
        seconds: time per stage: "prepare", "encode", "decode" and "paste".
        warnings: what a person should know, one sentence each.
    """

    object_id: int
    num_voxels: int
    volume_ml: float
    seconds: dict[str, float]
    warnings: tuple[str, ...]


class InteractiveSession:
    """Clicks on one scan. Not for several threads at once.

    Args:
        model: that answers; it takes clicks.
        log_folder: where every session's log goes, begun with its first step; None for no logs.
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
        self._opened: ScanPredictor | None = None
        self._organ_mask: Mask | Volume | None = None
        self._modality: Modality | None = None
        self._log: SessionLog | None = None
        self._states = [SessionState()]
        self._position = 0
        self._last: tuple[ObjectState, Segmentation] | None = None

    def set_volume(
        self,
        volume: Volume,
        *,
        modality: Modality | None = None,
        organ_mask: Mask | Volume | None = None,
    ) -> None:
        """Take a scan; what was clicked on an earlier one is forgotten here and kept in its log.

        Args:
            volume: the scan, from `read_volume`.
            modality: "CT" or "MR" where the file does not say it or says it wrongly.
            organ_mask: for a model that takes one (TAGS); values above 0 are organ.

        Raises:
            ConfigError: when the model takes no clicks, or the organ mask cannot be used.
        """
        opened = ScanPredictor(
            volume,
            self._model,
            modality=modality,
            organ_mask=organ_mask,
            feature_memory_mb=self._feature_memory_mb,
        )
        self.close()
        self._opened, self._modality, self._organ_mask = opened, modality, organ_mask
        self._states, self._position, self._last = [SessionState()], 0, None

    def click(
        self,
        point: VoxelPoint | WorldPointRAS,
        *,
        positive: bool = True,
        object_id: int = 1,
        cancelled: Callable[[], bool] = never,
    ) -> Answer:
        """Add a click to an object and answer all its clicks.

        Args:
            point: a voxel of the scan, or a place in the patient.
            positive: inside the object; False where the object is not.
            object_id: which object.
            cancelled: asked before every look of the network; True ends the click.

        Raises:
            ClickError: when the click is not finite or outside the scan, when there is none inside the object
                yet, or when the object is frozen or not there.
            CancelledError: when `cancelled` said so.
            OutputError: when the log cannot be written.
            The session is unchanged after each of them.
        """
        scan = self._scan()
        state = self._state.object(object_id)
        if state.frozen:
            raise ClickError(f"object {object_id} is frozen; unfreeze it, or click on another object")
        click = Click(point, positive)
        click.world(scan.volume.grid)
        check_any_inside((*state.clicks, click))
        self._write(step_of_click(click, object_id))
        with self._outcome_of_failure():
            found, changed = self._answered(object_id, click, cancelled)
        self._push(changed)
        # The click is in the log, so that it counts even where there is no room for its outcome.
        if self._log is not None:
            with contextlib.suppress(OutputError):
                self._log.append(outcome_of(found.mask, found.seconds))
        return Answer(object_id, found.mask.num_voxels, found.mask.volume_ml, found.seconds, found.warnings)

    def undo(self) -> bool:
        """Go back by one step, at once; False where there is none."""
        return self._move(-1, "undo")

    def redo(self) -> bool:
        """Take back an undo, at once; False where there is none."""
        return self._move(1, "redo")

    def reset(self) -> None:
        """Forget all objects and clicks; what was computed of the scan is kept, and undo brings them back."""
        self._scan()
        self._write(PlainStep(time=now(), kind="reset"))
        self._push(SessionState())

    def add_object(self, name: str = "") -> int:
        """Begin another object; return its id.

        Raises:
            ClickError: when there are 255 already.
        """
        self._scan()
        with_another = self._state.with_another(name)
        self._write(AddStep(time=now(), name=name))
        self._push(with_another)
        return len(self._state.objects)

    def freeze_object(self, object_id: int, *, frozen: bool = True) -> None:
        """Make an object unchangeable: others are not found where it is, and it counts as background for them.

        Args:
            object_id: which object.
            frozen: False makes it changeable again.

        Raises:
            ClickError: when the object is not there.
        """
        self._scan()
        state = self._state.object(object_id)
        if state.frozen == frozen:
            return
        # What lies on an earlier frozen object is that one's.
        mask = PackedMask.of(self.mask(object_id).array)
        self._write(FreezeStep(time=now(), object_id=object_id, frozen=frozen))
        self._push(self._state.with_object(object_id, replace(state, frozen=frozen, mask=mask)))

    def mask(self, object_id: int | None = None) -> Mask:
        """Return the mask of an object, or of all.

        Args:
            object_id: which object; None for the label map.

        Returns:
            (D, H, W) uint8 on the scan's grid: 0 and 1; in the label map each object's id, where a later object
            lies on an earlier one and a frozen one on all.

        Raises:
            ClickError: when the object is not there.
        """
        volume = self._scan().volume
        shape = volume.grid.shape_dhw
        state = self._state
        array = state.label_map(shape) if object_id is None else state.mask_of(object_id, shape)
        return Mask(array, volume.grid, volume.nifti)

    def probability(self, object_id: int = 1) -> NDArray[np.float32]:
        """Return the probability of an object in every voxel: (D, H, W) float32 in [0, 1].

        Raises:
            ClickError: when the object is not there.
        """
        scan, state = self._scan(), self._state.object(object_id)
        if not state.clicks:
            return np.zeros(scan.volume.grid.shape_dhw, dtype=np.float32)
        if self._last is None or self._last[0] != state:
            self._last = (state, self._ask(state, never))
        return self._last[1].probability()

    def resume(self, log: Path) -> None:
        """Repeat the steps of a log that undo and redo can reach, and go on writing to it.

        Raises:
            ConfigError: when the log is of another scan or model, damaged, or in use.
            ClickError: when its steps do not fit together.
        """
        header = self._current_header()
        read = read_log(log)
        check_same(header, read.header, log)
        writer = SessionLog(log, read.num_bytes)
        self.close()
        self._states, self._position, self._last = [SessionState()], 0, None
        folder, self._log_folder = self._log_folder, None
        try:
            history = history_of(read.steps)
            for step in history.steps:
                repeat_step(self, step)
            self._position = history.position
        except BaseException:
            writer.close()
            raise
        finally:
            self._log_folder = folder
        self._log = writer

    def close(self) -> None:
        """End the log; it can be resumed."""
        if self._log is not None:
            self._log.close()
            self._log = None

    @property
    def objects(self) -> tuple[SessionObject, ...]:
        """All objects, by id."""
        return self._state.listed(self._scan().volume.grid)

    @property
    def can_undo(self) -> bool:
        """Tell whether there is a step to undo."""
        return self._position > 0

    @property
    def can_redo(self) -> bool:
        """Tell whether there is an undone step."""
        return self._position < len(self._states) - 1

    @property
    def log_path(self) -> Path | None:
        """The log; None before the first step, and where none is written."""
        return None if self._log is None else self._log.path

    @property
    def memory_bytes(self) -> int:
        """Memory of features and history, without the scan."""
        features = 0 if self._opened is None else self._opened.feature_bytes
        masks = {id(o.mask): len(o.mask.bits) for s in self._states for o in s.objects}
        last = 0
        if self._last is not None:
            last = self._last[1].probability_in_box.nbytes + self._last[1].mask.array.nbytes
        return features + sum(masks.values()) + last

    @property
    def _state(self) -> SessionState:
        return self._states[self._position]

    def _scan(self) -> ScanPredictor:
        if self._opened is None:
            raise ConfigError("the session has no scan; call set_volume first")
        return self._opened

    def _answered(
        self, object_id: int, click: Click, cancelled: Callable[[], bool]
    ) -> tuple[Segmentation, SessionState]:
        state = self._state.object(object_id)
        clicked = replace(
            state,
            clicks=(*state.clicks, click),
            others=self._state.frozen_beside(object_id),
        )
        found = self._ask(clicked, cancelled)
        clicked = replace(clicked, mask=PackedMask.of(found.mask.array))
        self._last = (clicked, found)
        return found, self._state.with_object(object_id, clicked)

    def _ask(self, state: ObjectState, cancelled: Callable[[], bool]) -> Segmentation:
        scan = self._scan()
        if not state.others:
            return scan.predict(state.clicks, cancelled=cancelled)
        taken = np.zeros(scan.volume.grid.shape_dhw, dtype=np.uint8)
        for other in state.others:
            other.paint(taken, 1)
        beside = [Click(innermost(other), foreground=False) for other in state.others]
        return scan.predict(
            state.clicks, exclude_mask=taken.view(bool), background_clicks=beside, cancelled=cancelled
        )

    def _push(self, state: SessionState) -> None:
        self._states = [*self._states[: self._position + 1], state]
        self._position += 1

    def _move(self, by: int, kind: str) -> bool:
        self._scan()
        if not 0 <= self._position + by < len(self._states):
            return False
        self._write(PlainStep(time=now(), kind="undo" if kind == "undo" else "redo"))
        self._position += by
        return True

    def _current_header(self) -> LogHeader:
        return header_of(
            self._scan().volume,
            self._model,
            modality=self._modality,
            organ_mask=self._organ_mask,
        )

    def _write(self, line: Step | Outcome) -> None:
        """Append to the log, which begins with the first step."""
        if self._log is None:
            if self._log_folder is None:
                return
            header = self._current_header()
            self._log = SessionLog.begin(self._log_folder, header)
        self._log.append(line)

    @contextlib.contextmanager
    def _outcome_of_failure(self) -> Iterator[None]:
        """Write down that a click came to nothing, so that the log does not repeat it."""
        try:
            yield
        except BaseException as error:
            cancelled = isinstance(error, CancelledError)
            with contextlib.suppress(OutputError):
                self._write(Outcome(time=now(), kind="cancelled" if cancelled else "failed"))
            raise


def repeat_step(session: InteractiveSession, step: Step) -> None:
    """Do a step of a log.

    Raises:
        ClickError: when it does not fit what was done before it.
    """
    match step:
        case ClickStep():
            click = Click.at(step.position, space=step.space, foreground=step.positive)
            session.click(click.position, positive=step.positive, object_id=step.object_id)
        case AddStep():
            session.add_object(step.name)
        case FreezeStep():
            session.freeze_object(step.object_id, frozen=step.frozen)
        case PlainStep():
            {"undo": session.undo, "redo": session.redo, "reset": session.reset}[step.kind]()
