"""A client of another viewer's protocol: what waits for its next prediction, and what it shows.

Those clients know one object, keep a mask of their own and are told what has changed in it. Behind one is an
ordinary session; beside the session's record a small file says what the session does not know.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import Shaping, check_on_grid
from clickvol.interactive.scene import Scene
from clickvol.interactive.session import InteractiveSession
from clickvol.interactive.viewer_prompts import drawn_prompt
from clickvol.io.formats import write_volume
from clickvol.prompts.packed_mask import EMPTY, PackedMask, changed_box
from clickvol.server.refusal import RefusedError
from clickvol.server.served_session import ScanRecord, ServedSession, write_private
from clickvol.server.sessions import Sessions
from clickvol.server.worker import IsCancelled, IsGone

_SCAN_NAME = "scan.nrrd"


Waiting = Annotated[Shaping, Field(discriminator="kind")]


class LeaseState(BaseModel):
    """What is kept of a client beside its session.

    Attributes:
        buffer_dtype: of the client's mask; None before it has said so.
        shown: the mask that the client has.
        waiting: interactions for the next prediction, in the groups in which they came.
        steps: how many interactions of the session each prediction added; undo takes back the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    buffer_dtype: str | None = None
    shown: PackedMask = EMPTY
    waiting: tuple[tuple[Waiting, ...], ...] = Field(default=(), max_length=1000)
    steps: tuple[int, ...] = ()

    def but(self, **changes: object) -> "LeaseState":
        """Return the state with other values."""
        return self.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class Change:
    """What an interaction changed in the mask of a client.

    Attributes:
        ran: whether there was something to do.
        box: around the voxels that have changed; None where none has.
        voxels: of the new mask in the box.
    """

    ran: bool
    box: VoxelBox | None = None
    voxels: NDArray[np.bool_] | None = None

    @classmethod
    def between(cls, before: PackedMask, after: PackedMask) -> "Change":
        """Compare two masks."""
        box = changed_box(before, after)
        return cls(ran=True, box=box, voxels=None if box is None else after.within(box))


class Lease:
    """A client and its session."""

    def __init__(self, sessions: Sessions, served: ServedSession, is_gone: IsGone) -> None:
        self.sessions = sessions
        self.served = served
        self._is_gone = is_gone
        try:
            self.state = LeaseState.model_validate_json(served.lease_path.read_bytes())
        except (OSError, ValidationError):
            self.state = LeaseState()

    @classmethod
    def claim(cls, sessions: Sessions, is_gone: IsGone, session_id: str | None = None) -> tuple[str, "Lease"]:
        """Begin a session without a scan; return its id as well. RefusedError 503 when there are too many."""
        session_id, served = sessions.create(session_id)
        lease = cls(sessions, served, is_gone)
        lease.keep(LeaseState())
        return session_id, lease

    def keep(self, state: LeaseState) -> None:
        """Write the state to disk."""
        write_private(self.served.lease_path, state)
        self.state = state

    async def set_array(self, array: NDArray[Any], grid: VolumeGrid) -> None:
        """Take a scan (D, H, W) of any real dtype in place of an earlier one; if it is unfit there is none."""
        self.keep(LeaseState())

        def written(folder: Path) -> ScanRecord:
            write_volume(_as_files_hold_it(array), grid, folder / _SCAN_NAME)
            return ScanRecord(scan=_SCAN_NAME, is_upload=True)

        await self.sessions.set_scan(self.served, written, self._is_gone)

    async def grid(self) -> VolumeGrid:
        """Return where the voxels of the scan lie; RefusedError 409 when there is none."""
        grid: VolumeGrid = (await self._run(lambda session, _: session.scan.volume.grid))[0]
        return grid

    async def require_shape(self, array: NDArray[Any], what: str) -> None:
        """Refuse, with 422, an array of another shape than the image."""
        shape = (await self.grid()).shape_dhw
        if array.shape != shape:
            raise RefusedError(422, f"the {what} has shape {array.shape}; the image has {shape}")

    async def add(self, *group: Shaping, run: bool = True) -> Change:
        """Add prompts one after the other, and predict; without `run` they wait for the next prediction.

        Raises:
            ClickError: when one of them cannot be used; nothing has changed then.
        """
        grid = await self.grid()
        for interaction in group:
            check_on_grid(interaction, grid)
        waiting = (*self.state.waiting, group)
        if not run:
            self.keep(self.state.but(waiting=waiting))
            return Change(ran=False)
        return await self.predict(waiting)

    async def predict(self, waiting: tuple[tuple[Waiting, ...], ...] | None = None) -> Change:
        """Predict with all that waits; without anything inside the object it goes on waiting."""
        waiting = self.state.waiting if waiting is None else waiting
        pending = sorted((x for group in waiting for x in group), key=_is_outside)
        if not pending:
            return Change(ran=False)
        (mask, count), _ = await self._run(
            lambda session, is_cancelled: self._added(session, pending, is_cancelled)
        )
        if mask is None:
            self.keep(self.state.but(waiting=waiting))
            return Change(ran=True)
        steps = (*self.state.steps, count) if count else self.state.steps
        return self._shown(mask, self.state.but(waiting=(), steps=steps))

    async def undo(self) -> Change:
        """Take back the last interaction."""
        if self.state.waiting:
            self.keep(self.state.but(waiting=self.state.waiting[:-1]))
            return Change(ran=True)
        if not self.state.steps:
            return Change(ran=False)
        count = self.state.steps[-1]

        def back(session: InteractiveSession, _: IsCancelled) -> PackedMask:
            for _step in range(count):
                session.undo()
            return PackedMask.of(session.mask(1).array)

        mask, _ = await self._run(back)
        return self._shown(mask, self.state.but(steps=self.state.steps[:-1]))

    async def reset(self, *, shown: PackedMask = EMPTY) -> None:
        """Begin with another object; the client shows a mask of its own, or none."""
        if self.served.record is not None:
            await self._run(lambda session, _: session.reset() if session.history.index else None)
        self.keep(LeaseState(buffer_dtype=self.state.buffer_dtype, shown=shown))

    async def begin_with(self, mask: NDArray[np.generic], *, run: bool) -> Change:
        """Begin with a mask that the client shows; an empty one begins another object."""
        await self.reset(shown=PackedMask.of(mask))
        return await self.add(drawn_prompt("given_mask", mask), run=run) if mask.any() else Change(ran=False)

    async def mask(self) -> NDArray[np.uint8]:
        """Return the mask of the object: (D, H, W), 0 and 1."""
        array: NDArray[np.uint8] = (await self._run(lambda session, _: session.mask(1).array))[0]
        return array

    def _added(
        self, session: InteractiveSession, pending: list[Waiting], is_cancelled: IsCancelled
    ) -> tuple[PackedMask | None, int]:
        """Add all or nothing; None where nothing is inside the object yet."""
        if Scene.after(session.history.current).objects[0].shaped_at is None and _is_outside(pending[0]):
            return None, 0
        before = session.history.index
        try:
            for interaction in pending:
                self.served.add(session, interaction, is_cancelled)
        except BaseException:
            while session.history.index > before:
                session.undo()
            raise
        return PackedMask.of(session.mask(1).array), session.history.index - before

    async def _run(self, action: Callable[[InteractiveSession, IsCancelled], Any]) -> tuple[Any, Any]:
        if self.served.record is None:
            raise RefusedError(409, "there is no image yet; send it first")
        return await self.sessions.run(self.served, action, self._is_gone)

    def _shown(self, mask: PackedMask, state: LeaseState) -> Change:
        change = Change.between(self.state.shown, mask)
        self.keep(state.but(shown=mask))
        return change


def _as_files_hold_it(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in a dtype that every file format has."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    is_long = array.dtype.itemsize == 8 and array.dtype.kind in "iu"
    return array.astype(np.float64 if is_long else array.dtype.newbyteorder("="), copy=False)


def _is_outside(interaction: Shaping) -> bool:
    return not getattr(interaction, "positive", True)
