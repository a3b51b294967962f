"""What the server does with sessions: the model's work in one thread, files in two others.

Every method is for the event loop; it queues what takes long and waits for it. What a session answers is
decided in `clickvol.interactive.session`.
"""

import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from clickvol.errors import CancelledError, ClickvolError, OutputError
from clickvol.files.limits import ReadLimits
from clickvol.interactive.record import find_records
from clickvol.interactive.session import InteractiveSession
from clickvol.io.formats import read_volume, write_volume
from clickvol.io.volume import Volume
from clickvol.server.descriptions import scan_out, state_out
from clickvol.server.refusal import RefusedError, storage_refusal
from clickvol.server.sessions import Live, ScanRecord, ServedSession, SessionRegistry
from clickvol.server.settings import ServerSettings
from clickvol.server.wire import OpenedOut, ResumableOut, StateOut
from clickvol.server.worker import IsCancelled, Worker
from clickvol.weights.load import LoadedModel

T = TypeVar("T")

Action = Callable[[Live, IsCancelled], T]
"""Work on a session in memory, in the model's thread."""

IsGone = Callable[[], Awaitable[bool]]

# The widest voxels that a scan can have: float64, and as much again for headers and padding of an archive.
_MAX_BYTES_PER_VOXEL = 16

# So many sessions can click in turn before one has to wait on disk. Chosen: a reading room, not a ward.
_NUM_BUSY_SESSIONS = 8

_SCAN_COPY = "scan-copy.nii.gz"

# Beside reading one scan, one result can be written.
_NUM_FILE_THREADS = 2


class _ParkedError(ClickvolError):
    """The session is on disk; its scan has to be read first."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A scan as a session has it, for those who ask in another form than the viewer's."""

    session_id: str
    served: ServedSession
    volume: Volume


class ImageNames:
    """Which session belongs to an image that a client has named; for one thread.

    Args:
        max_names: the oldest are forgotten beyond that.
    """

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._sessions: dict[str, str] = {}

    def set(self, image_id: str, session_id: str) -> None:
        """Remember the session of an image."""
        self._sessions.pop(image_id, None)
        self._sessions[image_id] = session_id
        while len(self._sessions) > self._max_names:
            del self._sessions[next(iter(self._sessions))]

    def get(self, image_id: str) -> str | None:
        """Return the session of an image, which may have ended."""
        return self._sessions.get(image_id)

    def forget(self, image_id: str) -> None:
        """Forget an image."""
        self._sessions.pop(image_id, None)


class SessionService:
    """Sessions of one model.

    Args:
        model: that answers all of them.
        settings: of the server.
    """

    def __init__(self, model: LoadedModel, settings: ServerSettings) -> None:
        self.model = model
        self.settings = settings
        self.registry = SessionRegistry(settings)
        self.names = ImageNames(settings.max_sessions)
        self._models = Worker("clickvol-model", num_threads=1, max_waiting=settings.max_waiting)
        self._files = Worker("clickvol-files", num_threads=_NUM_FILE_THREADS, max_waiting=settings.max_waiting)
        self._limits = ReadLimits(
            max_voxels=settings.max_voxels,
            max_bytes_unpacked=settings.max_voxels * _MAX_BYTES_PER_VOXEL,
        )
        self._feature_memory_mb = settings.memory_bytes / _NUM_BUSY_SESSIONS / 1e6

    @property
    def num_waiting(self) -> int:
        """Requests that wait for the model."""
        return self._models.num_waiting

    def close(self) -> None:
        """End the threads; sessions stay on disk and can be asked for again."""
        self._models.close()
        self._files.close()
        self.registry.release_all()

    async def open(self, record_of: Callable[[Path], ScanRecord], is_gone: IsGone | None = None) -> Opened:
        """Begin a session on a scan.

        Args:
            record_of: says which scan, given the folder of the session, where it may put an uploaded one.
            is_gone: whether the client has hung up.

        Raises:
            ClickvolError: when the scan cannot be read, is too large, or there are too many sessions. Nothing
                is left then.
        """
        session_id, served = self.registry.create()
        try:
            with served.pending():
                record = await self.on_files(lambda _: record_of(served.folder))
                served.write_record(record)
                volume = await self.on_files(lambda _: self._read(served), is_gone=is_gone)
                await self._with_volume(served, lambda _live, _cancelled: None, volume, is_gone)
        except BaseException:
            self.registry.close(served)
            raise
        return Opened(session_id, served, volume)

    async def describe(self, opened: Opened) -> OpenedOut:
        """Say what a client needs to know of a new session."""
        folders = self.registry.log_folders(opened.served)
        logs = await self.on_files(
            lambda _: [log for folder in folders for log in find_records(folder, opened.volume)]
        )
        logs.sort(key=lambda log: log.last_time, reverse=True)
        return OpenedOut(
            session_id=opened.session_id,
            lease_seconds=self.settings.lease_seconds,
            model_id=self.model.card.id,
            scan=scan_out(opened.volume, is_dicom=opened.served.is_dicom),
            resumable=[
                ResumableOut(log=log.path.stem, num_clicks=log.num_clicks, last_time=log.last_time)
                for log in logs
            ],
            state=await self.state(opened.served),
        )

    async def state(self, served: ServedSession) -> StateOut:
        """Return the state after the last change, without waiting for what is being computed."""
        if served.state is None:
            await self.act(served, lambda _live, _cancelled: None)
        if served.state is None:
            raise RefusedError(404, "the session has ended; open the scan again")
        return served.state

    async def act(self, served: ServedSession, action: Action[T], is_gone: IsGone | None = None) -> T:
        """Do something with a session in memory; one that was parked is opened again first.

        Raises:
            ClickvolError: what the action raises; 404 when the session ends meanwhile, 429 when too many wait.
        """
        with served.pending():
            try:
                return await self._with_volume(served, action, None, is_gone)
            except _ParkedError:
                volume = await self.on_files(lambda _: self._read(served), is_gone=is_gone)
                return await self._with_volume(served, action, volume, is_gone)

    async def change(
        self, served: ServedSession, action: Action[T], is_gone: IsGone | None = None
    ) -> tuple[T, StateOut]:
        """Do something that changes a session; return what came of it, and the state after it.

        Raises:
            ClickvolError: as `act`.
        """

        def changing(live: Live, is_cancelled: IsCancelled) -> tuple[T, StateOut]:
            try:
                return action(live, is_cancelled), _renewed(served, live)
            except BaseException:
                # Several clicks at once may have changed something before one of them failed.
                _renewed(served, live)
                raise

        return await self.act(served, changing, is_gone)

    async def resume(self, served: ServedSession, log_id: str, is_gone: IsGone) -> StateOut:
        """Repeat an earlier session on the same scan, and go on with its log.

        Raises:
            RefusedError: 404 when there is no such log of this scan, 409 when its session works right now.
            ClickvolError: when it cannot be repeated here.
        """
        folders = self.registry.log_folders(served)
        # Looked up by its name among those there are, never made into a path.
        logs = await self.act(
            served, lambda live, _: [log for f in folders for log in find_records(f, live.volume)]
        )
        found = next((log.path for log in logs if log.path.stem == log_id), None)
        if found is None:
            raise RefusedError(
                404, "there is no such log of this scan; open the scan again to see which there are"
            )
        taken = self.registry.take_log(served, found)

        def resuming(live: Live, _: IsCancelled) -> StateOut:
            try:
                live.session.resume(taken)
            except BaseException:
                # What it knows now is neither the one nor the other; it is opened again from its own log.
                served.park()
                self.registry.shelve_log(taken)
                raise
            self.registry.shelve_logs(served, but=taken)
            return _renewed(served, live)

        return await self.act(served, resuming, is_gone)

    async def on_files(self, job: Callable[[IsCancelled], T], is_gone: IsGone | None = None) -> T:
        """Do something with files, away from the model's thread.

        Raises:
            ClickvolError: what the job raises; a disk that refuses is 507.
        """
        try:
            return await self._files.run(job, is_gone=is_gone)
        except OSError as error:
            raise storage_refusal(error) from error
        except OutputError as error:
            if isinstance(error.__cause__, OSError):
                raise storage_refusal(error.__cause__) from error
            raise

    async def written(self, served: ServedSession, name: str, write: Callable[[Path], None]) -> bytes:
        """Return a file's content; the file itself is gone at once.

        Args:
            served: in whose folder it is written.
            name: of the file, whose suffix may choose a format.
            write: writes it.

        Raises:
            ClickvolError: what `write` raises.
        """

        def writing(_: IsCancelled) -> bytes:
            with tempfile.TemporaryDirectory(dir=served.folder, prefix="work-") as folder:
                write(Path(folder) / name)
                return (Path(folder) / name).read_bytes()

        return await self.on_files(writing)

    async def scan_copy(self, served: ServedSession) -> Path:
        """Return the scan as NIfTI; it is written once and stays as long as the session."""
        place = served.folder / _SCAN_COPY
        if not place.exists():
            volume = await self.act(served, lambda live, _: live.volume)
            await self.on_files(lambda _: _write_scan(volume, place))
        return place

    def _read(self, served: ServedSession) -> Volume:
        if served.record is None:
            raise RefusedError(404, "the session has ended; open the scan again")
        return read_volume(served.scan_path, series=served.record.series, limits=self._limits)

    async def _with_volume(
        self,
        served: ServedSession,
        action: Action[T],
        volume: Volume | None,
        is_gone: IsGone | None,
    ) -> T:
        try:
            return await self._models.run(partial(self._locked_run, served, action, volume), is_gone=is_gone)
        except CancelledError as error:
            if served.is_closed:
                raise RefusedError(404, "the session was closed meanwhile") from error
            raise
        finally:
            self.registry.clear_up(served)

    def _locked_run(
        self,
        served: ServedSession,
        action: Action[T],
        volume: Volume | None,
        is_cancelled: IsCancelled,
    ) -> T:
        """Run an action in the model's thread."""
        with served.lock:
            if served.is_closed:
                raise RefusedError(404, "the session was closed meanwhile")
            live = served.live or self._reopened(served, volume)
            try:
                return action(live, lambda: is_cancelled() or served.is_closed)
            finally:
                served.num_bytes = 0 if served.live is None else live.num_bytes
                self.registry.park_beyond(self.settings.memory_bytes, served)

    def _reopened(self, served: ServedSession, volume: Volume | None) -> Live:
        if volume is None:
            raise _ParkedError
        session = InteractiveSession(
            self.model, log_folder=served.folder, feature_memory_mb=self._feature_memory_mb
        )
        modality = None if served.record is None else served.record.modality
        session.set_volume(volume, modality=modality)
        log = served.newest_log()
        if log is not None:
            session.resume(log)
        served.live = Live(session, volume)
        if served.state is None:
            served.state = state_out(served.live, served.revision)
        return served.live


def _renewed(served: ServedSession, live: Live) -> StateOut:
    """Keep the state of a session for those who ask, with a new revision where it differs."""
    known = served.state
    if known is None or state_out(live, known.revision) != known:
        served.revision += 1
        served.state = state_out(live, served.revision)
        return served.state
    return known


def _write_scan(volume: Volume, place: Path) -> None:
    """Write a scan as NIfTI, in a dtype that holds its values."""
    array = volume.array
    if array.dtype.name not in ("uint8", "int16", "uint16", "int32", "float32", "float64"):
        array = array.astype("int16" if array.dtype.itemsize == 1 else "float64")
    write_volume(array, volume.grid, place)
