"""Sessions of a server: who holds one, how long it lives, how much memory all take, what is left of it on disk.

    STATE/open/KEY/session.json    which scan; touched whenever the session is used
    STATE/open/KEY/scan.nii.gz     an uploaded scan
    STATE/logs/KEY/*.jsonl         the record of its interactions; stays when the session ends

The id of a session is a secret that only its client has; on disk there is a hash of it. A server that was
killed has its sessions here, and opens each again from its record when it is asked for; so does one that had
to forget a session for lack of memory.

Several servers may share a state folder: each holds the lock of the sessions that it works on, refuses the
others with 503, and takes over those of a server that has died when it is asked for them.

Everything here is for the event loop's thread, except what is handed to the two workers: one thread owns the
model and all sessions in memory, two others read and write files.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import anyio

from clickvol.errors import CancelledError, ClickvolError, ConfigError, OutputError
from clickvol.files.limits import ReadLimits
from clickvol.interactive.record import ReadRecord, find_records, read_record
from clickvol.interactive.session import InteractiveSession
from clickvol.io.formats import read_volume, write_scan
from clickvol.io.volume import Volume
from clickvol.server.refusal import RefusedError, storage_refusal
from clickvol.server.served_session import ENDED_PREFIX, SESSION_ENDED, ScanRecord, ServedSession, shared_secret
from clickvol.server.settings import ServerSettings
from clickvol.server.wire import OpenedOut, ResumableOut, ScanOut, StateOut
from clickvol.server.worker import IsCancelled, IsGone, Worker
from clickvol.weights.load import LoadedModel

T = TypeVar("T")

Action = Callable[[InteractiveSession, IsCancelled], T]
"""Work on a session in memory, in the model's thread."""

_ID_BYTES = 24
_KEY_LENGTH = 40
_LOGS = "*.jsonl"
_EARLIER = "earlier"
_ORPHAN_SECONDS = 60.0
_SECONDS_PER_DAY = 86400

# float64, and as much again for headers and padding of an archive.
_MAX_BYTES_PER_VOXEL = 16

# So many sessions can click in turn before one has to wait on disk. Chosen: a reading room, not a ward.
_NUM_BUSY_SESSIONS = 8

# While one scan is read, one result can be written.
_NUM_FILE_THREADS = 2


class _ParkedError(ClickvolError):
    """The session is on disk; its scan has to be read first."""


class Sessions:
    """All sessions of one model; RefusedError when the state folder cannot be written to."""

    def __init__(self, model: LoadedModel, settings: ServerSettings) -> None:
        self.model = model
        self.settings = settings
        self._models = Worker("clickvol-model", num_threads=1, max_waiting=settings.max_waiting)
        self._files = Worker("clickvol-files", num_threads=_NUM_FILE_THREADS, max_waiting=settings.max_waiting)
        self.limits = ReadLimits(
            max_voxels=settings.max_voxels, max_bytes_unpacked=settings.max_voxels * _MAX_BYTES_PER_VOXEL
        )
        self._open = settings.state_folder / "open"
        self._logs = settings.state_folder / "logs"
        self._sessions: dict[str, ServedSession] = {}
        self.ahead: dict[ScanRecord, Volume] = {}  # read for the session that is likely to be opened next
        self._openings: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        try:
            for folder in (settings.state_folder, self._open, self._logs):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)
            self._secret = shared_secret(settings.state_folder / "secret")
        except OSError as error:
            raise storage_refusal(error) from error
        for ended in self._open.glob(f"{ENDED_PREFIX}*"):
            shutil.rmtree(ended, ignore_errors=True)
        self.take_orphans(quiet_seconds=float("-inf"))
        self._remove_old_logs()

    @property
    def num_sessions(self) -> int:
        """Sessions whose lease is not over, parked ones included."""
        return len(self._sessions)

    @property
    def num_in_memory(self) -> int:
        """Sessions that are not parked."""
        return sum(served.session is not None for served in tuple(self._sessions.values()))

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
        self,
        record_of: Callable[[Path], ScanRecord],
        is_gone: IsGone | None = None,
        session_id: str | None = None,
    ) -> tuple[str, ServedSession]:
        """Begin a session on a scan; return its id, drawn where none is given, as well.

        `record_of` says which scan, given the folder of the session, where it may put an uploaded one. Nothing
        is left where the scan cannot be read, is too large, or there are too many sessions.
        """
        session_id, served = self.create(session_id)
        try:
            await self.set_scan(served, record_of, is_gone)
        except BaseException:
            self.end(served)
            raise
        return session_id, served

    @contextlib.asynccontextmanager
    async def only_opening(self, session_id: str) -> AsyncIterator[None]:
        """Let one request at a time look for a session with an id from `derived_id`, and open it."""
        async with self._openings.setdefault(session_id, anyio.Lock()):
            yield

    async def open_once(
        self, session_id: str, record_of: Callable[[Path], ScanRecord], is_gone: IsGone | None = None
    ) -> ServedSession:
        """Return a session with an id from `derived_id`; it is opened where it is not."""
        async with self.only_opening(session_id):
            return self.find(session_id) or (await self.open(record_of, is_gone, session_id))[1]

    async def set_scan(
        self, served: ServedSession, record_of: Callable[[Path], ScanRecord], is_gone: IsGone | None = None
    ) -> None:
        """Give a session its scan, or none when it cannot be read; clicks on an earlier one stay on disk."""
        with served.pending():
            if served.record is not None:
                await self._models.run(lambda _: served.park())
                await self.on_files(lambda _: self._forget_scan(served))
            try:
                served.write_record(await self.on_files(lambda _: record_of(served.folder)))
                await self.run(served, lambda _session, _cancelled: None, is_gone)
            except BaseException:
                served.forget_scan()
                raise

    def derived_id(self, *parts: str) -> str:
        """Return the id of the session that a client has on something: the same one every time.

        It is a secret as well; every server with this state folder derives the same one.
        """
        return hmac.new(self._secret, json.dumps(parts).encode(), "sha256").hexdigest()

    def find(self, session_id: str) -> ServedSession | None:
        """Return a session with a scan and renew its lease; None where there is none."""
        try:
            return self.get(session_id)
        except RefusedError as error:
            if error.status != 404:
                raise
            return None

    def get(self, session_id: str) -> ServedSession:
        """Return a session with a scan and renew its lease; 404 when there is none, 503 when it is held."""
        served = self.leased(session_id)
        if served.record is None:
            raise RefusedError(404, SESSION_ENDED)
        served.touch()
        return served

    def leased(self, session_id: str) -> ServedSession:
        """Return a session that may have no scan yet; its lease is not renewed. Raises as `get`."""
        self.sweep()
        key = _key_of(session_id)
        served = self._sessions.get(key) or self._adopted(key)
        if served is None:
            raise RefusedError(404, SESSION_ENDED)
        return served

    def end(self, served: ServedSession) -> None:
        """End a session: its scan and what was computed are deleted, its record stays."""
        self._sessions.pop(served.key, None)
        served.is_closed = True
        served.leave_place()

        def clean_up() -> None:
            served.park()
            shutil.rmtree(served.folder, ignore_errors=True)
            served.lock.release()

        # After what is being computed for it, which ends at the next call of the network.
        self._models.submit(clean_up)

    def sweep(self) -> None:
        """End every session of this server whose lease is over."""
        oldest = time.time() - self.settings.lease_seconds
        for served in tuple(self._sessions.values()):
            if not served.num_pending and served.used_at < oldest:
                self.end(served)

    def take_orphans(self, *, quiet_seconds: float = _ORPHAN_SECONDS) -> None:
        """Take over what servers that have died left in the state folder, so that it ends in time.

        A session that was used in the last `quiet_seconds` may be another server's.
        """
        newest = time.time() - quiet_seconds
        for folder in sorted(self._open.iterdir()):
            with contextlib.suppress(OSError, RefusedError):
                if folder.name not in self._sessions and folder.stat().st_mtime <= newest:
                    self._adopted(folder.name)
        self.sweep()

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
        """Go on with a copy of an earlier session on the same scan; RefusedError 404 when there is none."""
        volume, _ = await self.run(served, lambda session, _: session.scan.volume)
        # Looked up by its name among those there are, never made into a path.
        records = await self._earlier_records(served, volume)
        record = next((record for record in records if record.path.stem == log_id), None)
        if record is None:
            raise RefusedError(404, "there is no such log of this scan; open the scan to see which there are")
        return (await self.run(served, lambda session, _: session.insert(record), is_gone))[1]

    async def on_files(self, job: Callable[[IsCancelled], T], is_gone: IsGone | None = None) -> T:
        """Do something with files, away from the model's thread; a disk that refuses is a RefusedError 507."""
        try:
            return await self._files.run(job, is_gone=is_gone)
        except OSError as error:
            raise storage_refusal(error) from error
        except OutputError as error:
            if isinstance(error.__cause__, OSError):
                raise storage_refusal(error.__cause__) from error
            raise

    async def written(self, served: ServedSession, name: str, write: Callable[[Path], None]) -> bytes:
        """Return the content of a file that `write` writes in a session's folder; the file is gone at once."""

        def writing(_: IsCancelled) -> bytes:
            with tempfile.TemporaryDirectory(dir=served.folder, prefix="work-") as folder:
                write(Path(folder) / name)
                return (Path(folder) / name).read_bytes()

        return await self.on_files(writing)

    async def scan_copy(self, served: ServedSession) -> Path:
        """Return the scan as NIfTI; it is written once and stays as long as the session."""
        place = served.scan_copy_path
        if not place.exists():
            volume, _ = await self.run(served, lambda session, _: session.scan.volume)
            # One geometry that all readers agree on, whatever the header of the scan leaves open.
            shown = replace(volume, grid=volume.grid.without_file_facts())
            await self.on_files(lambda _: write_scan(shown, place))
        return place

    async def _earlier_records(self, served: ServedSession, volume: Volume) -> list[ReadRecord]:
        """Return the records of the other sessions on a scan, the newest first."""
        records = await self.on_files(lambda _: find_records(self._logs, volume))
        return [record for record in records if record.path.parent.name != served.key]

    def create(self, session_id: str | None = None) -> tuple[str, ServedSession]:
        """Begin a session without a scan; return its id, too. 503 when there are too many, 507 for the disk."""
        self.sweep()
        if len(self._sessions) >= self.settings.max_leases:
            raise RefusedError(
                503,
                f"{self.settings.max_leases} sessions are open, which is the most here; close one, or try "
                "again later",
                retry_after_seconds=60,
            )
        session_id = session_id or secrets.token_urlsafe(_ID_BYTES)
        folder = self._open / _key_of(session_id)
        try:
            folder.mkdir(mode=0o700)
            served = ServedSession(folder)
        except FileExistsError as error:
            raise RefusedError(503, "this scan is being opened; try again", retry_after_seconds=1) from error
        except OSError as error:
            raise storage_refusal(error) from error
        self._sessions[served.key] = served
        return session_id, served

    def _forget_scan(self, served: ServedSession) -> None:
        """Put the records of a scan aside, and delete the scan."""
        logs = self._logs / served.key
        for log in logs.glob(_LOGS):
            (logs / _EARLIER).mkdir(exist_ok=True, mode=0o700)
            log.replace(logs / _EARLIER / log.name)
        served.forget_scan()

    def _read(self, served: ServedSession) -> Volume:
        if served.record is None or served.is_closed:
            raise RefusedError(404, SESSION_ENDED)
        ahead = self.ahead.pop(served.record, None)
        series, volume = served.record.series, served.record.volume
        return ahead or read_volume(served.scan_path, series=series, volume_index=volume, limits=self.limits)

    def _run_on_model(
        self, served: ServedSession, action: Action[T], volume: Volume | None, is_cancelled: IsCancelled
    ) -> tuple[T, StateOut]:
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
        log_folder = self._logs / served.key
        feature_memory_mb = self.settings.memory_bytes / _NUM_BUSY_SESSIONS / 1e6
        session = InteractiveSession(self.model, log_folder=log_folder, feature_memory_mb=feature_memory_mb)
        session.set_volume(volume, modality=None if served.record is None else served.record.modality)
        for log in log_folder.glob(_LOGS):
            session.resume(log)
            served.unanswered = read_record(log).unanswered
        served.session = session
        return session

    def _park_beyond_memory(self, current: ServedSession) -> None:
        """Park the sessions used least recently until the others are few and fit; the current one stays."""
        live = [served for served in tuple(self._sessions.values()) if served.session is not None]
        total = sum(served.num_bytes for served in live)
        num_live = len(live)
        for served in sorted(live, key=lambda served: served.used_at):
            if total <= self.settings.memory_bytes and num_live <= self.settings.max_sessions:
                return
            if served is not current:
                total, num_live = total - served.num_bytes, num_live - 1
                served.park()

    def _adopted(self, key: str) -> ServedSession | None:
        """Take over a session that lies on disk; None where there is none, 503 where another has it."""
        folder = self._open / key
        if not folder.is_dir() or key.startswith(ENDED_PREFIX):
            return None
        try:
            served = ServedSession(folder)
            for log in folder.glob(_LOGS):  # where earlier builds had it
                (self._logs / key).mkdir(exist_ok=True, mode=0o700)
                log.replace(self._logs / key / log.name)
        except ConfigError as error:
            raise RefusedError(
                503, "another process of this server holds this session; try again", retry_after_seconds=1
            ) from error
        except (OSError, ClickvolError):
            return None
        served.read_record()
        self._sessions[key] = served
        return served

    def _remove_old_logs(self) -> None:
        oldest = time.time() - self.settings.keep_log_days * _SECONDS_PER_DAY
        for log in tuple(self._logs.rglob(_LOGS)):
            with contextlib.suppress(OSError):
                if log.stat().st_mtime < oldest and log.parent.name not in self._sessions:
                    log.unlink()
                    log.parent.rmdir()  # where it was the only one


def _key_of(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY_LENGTH]
