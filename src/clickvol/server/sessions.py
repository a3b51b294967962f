"""Sessions of a server: who holds one, how long it lives, how much memory all take, what is left of it on disk.

    STATE/open/KEY/session.json    which scan; touched whenever the session is used
    STATE/open/KEY/scan.nii.gz     an uploaded scan
    STATE/logs/KEY/*.jsonl         the record of its interactions; stays when the session ends

The id of a session is a secret that only its client has; on disk there is a hash of it. A server that was
killed has its sessions here, and opens each again from its record when it is asked for; so does one that had
to forget a session for lack of memory.

Everything here is for the event loop's thread, except what is handed to the two workers: one thread owns the
model and all sessions in memory, two others read and write files.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from filelock import BaseFileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from clickvol.errors import CancelledError, ClickvolError, OutputError
from clickvol.files.atomic import atomic_path
from clickvol.files.limits import ReadLimits
from clickvol.files.lock import acquire_lock
from clickvol.interactive.interactions import History
from clickvol.interactive.record import ReadRecord, find_records
from clickvol.interactive.session import InteractiveSession
from clickvol.io.formats import read_volume, write_scan
from clickvol.io.volume import Volume
from clickvol.server.refusal import RefusedError, storage_refusal
from clickvol.server.settings import ServerSettings
from clickvol.server.wire import OpenedOut, ResumableOut, ScanOut, StateOut
from clickvol.server.worker import IsCancelled, IsGone, Worker
from clickvol.weights.load import LoadedModel

T = TypeVar("T")

Action = Callable[[InteractiveSession, IsCancelled], T]
"""Work on a session in memory, in the model's thread."""

_ID_BYTES = 24
_KEY_LENGTH = 40
_RECORD = "session.json"
_LOGS = "*.jsonl"
_SCAN_COPY = "scan-copy.nii.gz"
_TOUCH_SECONDS = 5.0
_SECONDS_PER_DAY = 86400

# The widest voxels that a scan can have: float64, and as much again for headers and padding of an archive.
_MAX_BYTES_PER_VOXEL = 16

# So many sessions can click in turn before one has to wait on disk. Chosen: a reading room, not a ward.
_NUM_BUSY_SESSIONS = 8

# While one scan is read, one result can be written.
_NUM_FILE_THREADS = 2

_GONE = "there is no such session, or its lease is over; open the scan again"


class ScanRecord(BaseModel):
    """Which scan a session works on; what is kept on disk.

    Attributes:
        format: of this record.
        scan: path of the scan; for an upload its name in the session's folder.
        is_upload: whether it lies in the session's folder.
        series: of a DICOM folder with several.
        modality: where the user says what the file does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    scan: str
    is_upload: bool
    series: str | None = None
    modality: Literal["CT", "MR", "PT"] | None = None


class _ParkedError(ClickvolError):
    """The session is on disk; its scan has to be read first."""


class ServedSession:
    """A session that a client holds, in memory or parked on disk.

    Attributes:
        folder: what is kept of it while it is open; the name is its key, a hash of its id.
        record: its scan; None until there is one.
        session: what answers; None while it is parked. The model's thread sets it.
        history: that `state` describes.
        state: after the last change; None until it was opened in this process.
        num_pending: requests that wait for it or work with it.
        is_closed: it has ended.
        used_at: seconds since the epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: ScanRecord | None = None
        self.session: InteractiveSession | None = None
        self.history: History | None = None
        self.state: StateOut | None = None
        self.num_pending = 0
        self.is_closed = False
        self.used_at = time.time()
        self._touched_at = 0.0
        self.lock: BaseFileLock = acquire_lock(folder / ".lock", "another process holds this session")

    @property
    def scan_path(self) -> Path:
        """Where its scan lies."""
        if self.record is None:
            raise RefusedError(404, _GONE)
        return self.folder / self.record.scan if self.record.is_upload else Path(self.record.scan)

    @property
    def is_dicom(self) -> bool:
        """Whether the scan is a DICOM series."""
        return self.scan_path.is_dir() or self.scan_path.suffix.lower() == ".zip"

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        session = self.session
        return 0 if session is None else session.scan.volume.array.nbytes + session.memory_bytes

    @contextlib.contextmanager
    def pending(self) -> Iterator[None]:
        """Count a request for the length of a block."""
        self.num_pending += 1
        try:
            yield
        finally:
            self.num_pending -= 1
            self.touch()

    def touch(self) -> None:
        """Renew the lease."""
        self.used_at = time.time()
        if self.used_at - self._touched_at > _TOUCH_SECONDS:
            self._touched_at = self.used_at
            with contextlib.suppress(OSError):
                os.utime(self.folder / _RECORD)

    def write_record(self, record: ScanRecord) -> None:
        """Keep which scan it is.

        Raises:
            OutputError: when the disk refuses.
        """
        with atomic_path(self.folder / _RECORD, ".json") as temporary:
            temporary.write_text(record.model_dump_json(), encoding="utf-8")
            temporary.chmod(0o600)
        self.record = record

    def park(self) -> None:
        """Forget what is in memory; in the model's thread."""
        if self.session is not None:
            self.session.close()
        self.session = None


class Sessions:
    """All sessions of one model.

    Args:
        model: that answers all of them.
        settings: of the server.

    Raises:
        RefusedError: when the state folder cannot be written to.
    """

    def __init__(self, model: LoadedModel, settings: ServerSettings) -> None:
        self.model = model
        self.settings = settings
        self._models = Worker("clickvol-model", num_threads=1, max_waiting=settings.max_waiting)
        self._files = Worker("clickvol-files", num_threads=_NUM_FILE_THREADS, max_waiting=settings.max_waiting)
        self._limits = ReadLimits(
            max_voxels=settings.max_voxels,
            max_bytes_unpacked=settings.max_voxels * _MAX_BYTES_PER_VOXEL,
        )
        self._open = settings.state_folder / "open"
        self._logs = settings.state_folder / "logs"
        self._sessions: dict[str, ServedSession] = {}
        try:
            for folder in (settings.state_folder, self._open, self._logs):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise storage_refusal(error) from error
        self._open_earlier()
        self._remove_old_logs()

    @property
    def num_sessions(self) -> int:
        """Sessions whose lease is not over, parked ones included."""
        return len(self._sessions)

    @property
    def num_bytes(self) -> int:
        """Memory that all of them hold."""
        return sum(served.num_bytes for served in tuple(self._sessions.values()))

    @property
    def num_waiting(self) -> int:
        """Requests that wait for the model."""
        return self._models.num_waiting

    def close(self) -> None:
        """End the threads; sessions stay on disk and can be asked for again, also by the next process."""
        self._models.close()
        self._files.close()
        for served in self._sessions.values():
            served.park()
            served.lock.release()
        self._sessions.clear()

    async def open(
        self, record_of: Callable[[Path], ScanRecord], is_gone: IsGone | None = None
    ) -> tuple[str, ServedSession]:
        """Begin a session on a scan; return its id as well.

        Args:
            record_of: says which scan, given the folder of the session, where it may put an uploaded one.
            is_gone: whether the client has hung up.

        Raises:
            ClickvolError: when the scan cannot be read, is too large, or there are too many sessions. Nothing
                is left then.
        """
        session_id, served = self._create()
        try:
            with served.pending():
                served.write_record(await self.on_files(lambda _: record_of(served.folder)))
                await self.run(served, lambda _session, _cancelled: None, is_gone)
        except BaseException:
            self.end(served)
            raise
        return session_id, served

    def get(self, session_id: str) -> ServedSession:
        """Return a session and renew its lease.

        Raises:
            RefusedError: 404 when there is none, or its lease is over.
        """
        self.sweep()
        served = self._sessions.get(_key_of(session_id))
        if served is None or served.record is None:
            raise RefusedError(404, _GONE)
        served.touch()
        return served

    def end(self, served: ServedSession) -> None:
        """End a session: its scan and what was computed are deleted, its record stays."""
        self._sessions.pop(served.folder.name, None)
        served.is_closed = True

        def clean_up() -> None:
            served.park()
            shutil.rmtree(served.folder, ignore_errors=True)
            served.lock.release()

        # After what is being computed for it, which ends at the next call of the network.
        self._models.submit(clean_up)

    def sweep(self) -> None:
        """End every session whose lease is over."""
        oldest = time.time() - self.settings.lease_seconds
        for served in tuple(self._sessions.values()):
            if not served.num_pending and served.used_at < oldest:
                self.end(served)

    async def describe(self, session_id: str, served: ServedSession) -> OpenedOut:
        """Say what a client needs to know of a new session."""
        volume, state = await self.run(served, lambda session, _: session.scan.volume)
        records = await self._earlier_records(served, volume)
        return OpenedOut(
            session_id=session_id,
            lease_seconds=self.settings.lease_seconds,
            model_id=self.model.card.id,
            scan=ScanOut.of(volume, is_dicom=served.is_dicom),
            resumable=[
                ResumableOut(log=r.path.stem, num_clicks=r.num_clicks, last_time=r.last_time) for r in records
            ],
            state=state,
        )

    async def state(self, served: ServedSession) -> StateOut:
        """Return the state after the last change, without waiting for what is being computed."""
        return served.state or (await self.run(served, lambda _session, _cancelled: None))[1]

    async def run(
        self, served: ServedSession, action: Action[T], is_gone: IsGone | None = None
    ) -> tuple[T, StateOut]:
        """Do something with a session, in the model's thread; one that was parked is opened again first.

        Returns:
            What came of it, and the state after it.

        Raises:
            ClickvolError: what the action raises; 404 when the session ends meanwhile, 429 when too many wait.
        """
        with served.pending():
            volume = None
            while True:
                if served.session is None:
                    volume = await self.on_files(lambda _: self._read(served), is_gone)
                job = partial(self._run_on_model, served, action, volume)
                try:
                    return await self._models.run(job, is_gone=is_gone)
                except _ParkedError:
                    continue
                except CancelledError as error:
                    if served.is_closed:
                        raise RefusedError(404, "the session was closed meanwhile") from error
                    raise

    async def resume(self, served: ServedSession, log_id: str, is_gone: IsGone) -> StateOut:
        """Go on with a copy of the interactions of an earlier session on the same scan.

        Raises:
            RefusedError: 404 when there is no such record of this scan.
            ClickvolError: when it is of another model.
        """
        volume, _ = await self.run(served, lambda session, _: session.scan.volume)
        # Looked up by its name among those there are, never made into a path.
        records = await self._earlier_records(served, volume)
        record = next((record for record in records if record.path.stem == log_id), None)
        if record is None:
            raise RefusedError(404, "there is no such log of this scan; open the scan to see which there are")
        return (await self.run(served, lambda session, _: session.insert(record), is_gone))[1]

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
            volume, _ = await self.run(served, lambda session, _: session.scan.volume)
            # One geometry that all readers agree on, whatever the header of the scan leaves open.
            shown = replace(volume, grid=volume.grid.without_file_facts())
            await self.on_files(lambda _: write_scan(shown, place))
        return place

    async def _earlier_records(self, served: ServedSession, volume: Volume) -> list[ReadRecord]:
        """Return the records of the other sessions on a scan, the newest first."""
        records = await self.on_files(lambda _: find_records(self._logs, volume))
        return [record for record in records if record.path.parent.name != served.folder.name]

    def _create(self) -> tuple[str, ServedSession]:
        self.sweep()
        if len(self._sessions) >= self.settings.max_sessions:
            raise RefusedError(
                503,
                f"{self.settings.max_sessions} sessions are open, which is the most here; close one, or try "
                "again later",
                retry_after_seconds=60,
            )
        session_id = secrets.token_urlsafe(_ID_BYTES)
        folder = self._open / _key_of(session_id)
        try:
            folder.mkdir(mode=0o700)
            served = ServedSession(folder)
        except OSError as error:
            raise storage_refusal(error) from error
        self._sessions[folder.name] = served
        return session_id, served

    def _read(self, served: ServedSession) -> Volume:
        if served.record is None or served.is_closed:
            raise RefusedError(404, _GONE)
        return read_volume(served.scan_path, series=served.record.series, limits=self._limits)

    def _run_on_model(
        self, served: ServedSession, action: Action[T], volume: Volume | None, is_cancelled: IsCancelled
    ) -> tuple[T, StateOut]:
        """Run an action in the model's thread."""
        if served.is_closed:
            raise RefusedError(404, "the session was closed meanwhile")
        session = served.session or self._reopened(served, volume)
        try:
            result = action(session, lambda: is_cancelled() or served.is_closed)
            if served.state is None or served.history != session.history:
                served.state, served.history = StateOut.of(session), session.history
            return result, served.state
        finally:
            self._park_beyond_memory(served)

    def _reopened(self, served: ServedSession, volume: Volume | None) -> InteractiveSession:
        if volume is None:
            raise _ParkedError("the session is parked")
        log_folder = self._logs / served.folder.name
        feature_memory_mb = self.settings.memory_bytes / _NUM_BUSY_SESSIONS / 1e6
        session = InteractiveSession(self.model, log_folder=log_folder, feature_memory_mb=feature_memory_mb)
        session.set_volume(volume, modality=None if served.record is None else served.record.modality)
        for log in log_folder.glob(_LOGS):
            session.resume(log)
        served.session = session
        return session

    def _park_beyond_memory(self, current: ServedSession) -> None:
        """Park the sessions used least recently until the others fit into memory; the current one stays."""
        live = [served for served in tuple(self._sessions.values()) if served.session is not None]
        total = sum(served.num_bytes for served in live)
        for served in sorted(live, key=lambda served: served.used_at):
            if total <= self.settings.memory_bytes:
                return
            if served is not current:
                total -= served.num_bytes
                served.park()

    def _open_earlier(self) -> None:
        """Take over what an earlier process left, unless another one holds it."""
        for folder in sorted(self._open.iterdir()):
            try:
                served = ServedSession(folder)
                for log in folder.glob(_LOGS):  # where earlier builds had it
                    (self._logs / folder.name).mkdir(exist_ok=True, mode=0o700)
                    log.replace(self._logs / folder.name / log.name)
            except (OSError, ClickvolError):
                continue
            try:
                place = folder / _RECORD
                served.record = ScanRecord.model_validate_json(place.read_bytes())
                served.used_at = place.stat().st_mtime
            except (OSError, ValidationError):
                served.used_at = 0.0  # it never had a scan
            self._sessions[folder.name] = served
        self.sweep()

    def _remove_old_logs(self) -> None:
        oldest = time.time() - self.settings.keep_log_days * _SECONDS_PER_DAY
        for log in tuple(self._logs.rglob(_LOGS)):
            with contextlib.suppress(OSError):
                if log.stat().st_mtime < oldest and log.parent.name not in self._sessions:
                    log.unlink()
                    log.parent.rmdir()  # where it was the only one


def _key_of(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY_LENGTH]
