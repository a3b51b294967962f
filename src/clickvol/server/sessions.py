"""Sessions of a server: who holds one, how long it lives, how much memory all take, what is left of it on disk.

    STATE/open/KEY/session.json    which scan; touched whenever the session is used
    STATE/open/KEY/scan.nii.gz     an uploaded scan
    STATE/open/KEY/*.jsonl         the log of its clicks
    STATE/logs/*.jsonl             logs of sessions that ended; a session on the same scan may take one over

The id of a session is a secret that only its client has; on disk there is a hash of it. A server that was
killed finds its sessions here and opens each again from its log when it is asked for.

Two kinds of lock, never both taken in the other order: a session's own, held by the one thread that works with
it, and then the registry's, held for no longer than it takes to look at a table. Torch-free.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clickvol.errors import ClickvolError, ConfigError
from clickvol.files.atomic import atomic_path
from clickvol.files.file_lock import lock_or_refuse
from clickvol.io.volume import Volume
from clickvol.server.refusal import RefusedError, storage_refusal
from clickvol.server.settings import ServerSettings
from clickvol.server.wire import StateOut

if TYPE_CHECKING:
    from clickvol.interactive.session import InteractiveSession

_ID_BYTES = 24
_KEY_LENGTH = 40
_RECORD = "session.json"
_LOCK = ".lock"
_LOGS = "*.jsonl"
_TOUCH_SECONDS = 5.0
_SECONDS_PER_DAY = 86400

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


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """A session in memory.

    Attributes:
        session: what answers clicks; for one thread at a time.
        volume: the scan.
    """

    session: "InteractiveSession"
    volume: Volume

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        return self.volume.array.nbytes + self.session.memory_bytes


class ServedSession:
    """A session that a client holds, in memory or parked on disk.

    Attributes:
        key: hash of its id.
        folder: what is kept of it.
        record: its scan; None until there is one.
        lock: held by the thread that works with `live`.
        live: None while it is parked.
        state: after the last change; None until it was opened in this process.
        num_pending: requests that wait for it or work with it.
        is_closed: it has ended; whoever works with it clears up.
        is_cleared: nothing is left of it.
        revision: grows with every change, over restarts too.
        used_at: seconds since the epoch.
        num_bytes: memory that it holds, as of its last job.
    """

    def __init__(self, key: str, folder: Path, lock_descriptor: int) -> None:
        self.key = key
        self.folder = folder
        self.record: ScanRecord | None = None
        self.lock = threading.Lock()
        self.live: Live | None = None
        self.state: StateOut | None = None
        self.num_pending = 0
        self.is_closed = False
        self.is_cleared = False
        # In milliseconds of the clock, so that it grows over restarts too.
        self.revision = int(time.time() * 1000)
        self.used_at = time.time()
        self.num_bytes = 0
        self._lock_descriptor = lock_descriptor
        self._touched_at = 0.0

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

    @contextlib.contextmanager
    def pending(self) -> Iterator[None]:
        """Count a request for the length of a block; only on the event loop's thread."""
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

    def newest_log(self) -> Path | None:
        """Return the log that it was writing; None before the first step."""
        return max(self.folder.glob(_LOGS), default=None, key=lambda log: log.stat().st_mtime)

    def park(self) -> None:
        """Forget what is in memory; the lock is held by the caller."""
        if self.live is not None:
            self.live.session.close()
        self.live, self.num_bytes = None, 0

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock_descriptor)


class SessionRegistry:
    """All sessions of a server.

    Args:
        settings: of the server.

    Raises:
        RefusedError: when the state folder cannot be written to.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._open = settings.state_folder / "open"
        self._logs = settings.state_folder / "logs"
        self._lock = threading.Lock()
        self._sessions: dict[str, ServedSession] = {}
        try:
            for folder in (settings.state_folder, self._open, self._logs):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise storage_refusal(error) from error
        self._find_earlier()
        self._remove_old_logs()

    @property
    def num_sessions(self) -> int:
        """Sessions whose lease is not over, parked ones included."""
        with self._lock:
            return len(self._sessions)

    def create(self) -> tuple[str, ServedSession]:
        """Begin a session; it has no scan yet.

        Returns:
            Its id, and the session.

        Raises:
            RefusedError: 503 when there are too many, 507 when the disk refuses.
        """
        self.sweep()
        session_id = secrets.token_urlsafe(_ID_BYTES)
        key = _key_of(session_id)
        with self._lock:
            if len(self._sessions) >= self._settings.max_sessions:
                raise RefusedError(
                    503,
                    f"{self._settings.max_sessions} sessions are open, which is the most here; close one, or "
                    "try again later",
                    retry_after_seconds=60,
                )
            try:
                folder = self._open / key
                folder.mkdir(mode=0o700)
                served = ServedSession(key, folder, _locked(folder))
            except OSError as error:
                raise storage_refusal(error) from error
            self._sessions[key] = served
        return session_id, served

    def find(self, session_id: str) -> ServedSession:
        """Return a session and renew its lease.

        Raises:
            RefusedError: 404 when there is none, or its lease is over.
        """
        with self._lock:
            served = self._sessions.get(_key_of(session_id))
        if served is None or served.record is None:
            raise RefusedError(404, _GONE)
        if self._is_over(served):
            self.close(served)
            raise RefusedError(404, _GONE)
        served.touch()
        return served

    def close(self, served: ServedSession) -> None:
        """End a session: its scan and what was computed are deleted, its log stays."""
        with self._lock:
            self._sessions.pop(served.key, None)
        served.is_closed = True
        self.clear_up(served)

    def clear_up(self, served: ServedSession) -> None:
        """Remove what is left of a session that has ended, unless a thread works with it, which then will."""
        if not served.is_closed or not served.lock.acquire(blocking=False):
            return
        try:
            if served.is_cleared:
                return
            served.park()
            self.shelve_logs(served, but=None)
            shutil.rmtree(served.folder, ignore_errors=True)
            served.release()
            served.is_cleared = True
        finally:
            served.lock.release()

    def shelve_logs(self, served: ServedSession, *, but: Path | None) -> None:
        """Put the logs of a session where others find them, except one; its lock is held by the caller."""
        for log in served.folder.glob(_LOGS):
            if log != but:
                self.shelve_log(log)

    def sweep(self) -> None:
        """End every session whose lease is over."""
        with self._lock:
            over = [served for served in self._sessions.values() if self._is_over(served)]
        for served in over:
            self.close(served)

    def park_beyond(self, max_bytes: int, current: ServedSession) -> None:
        """Park the sessions used least recently until the others fit into memory; the current one stays."""
        with self._lock:
            live = [served for served in self._sessions.values() if served.live is not None]
        total = sum(served.num_bytes for served in live)
        for served in sorted(live, key=lambda other: other.used_at):
            if total <= max_bytes:
                return
            if served is not current and served.lock.acquire(blocking=False):
                try:
                    total -= served.num_bytes
                    served.park()
                finally:
                    served.lock.release()

    def log_folders(self, served: ServedSession) -> list[Path]:
        """Return where logs of other sessions are that this one may take over."""
        with self._lock:
            others = [other.folder for other in self._sessions.values() if other is not served]
        return [self._logs, *others]

    def take_log(self, served: ServedSession, log: Path) -> Path:
        """Move a log into the folder of a session; a session that had it ends.

        Raises:
            RefusedError: 404 when it is gone, 409 when its session works right now.
        """
        with self._lock:
            owner = self._sessions.get(log.parent.name)
        if owner is not None:
            if owner.num_pending:
                raise RefusedError(
                    409,
                    "the session that these clicks belong to works right now; try again when it has answered",
                )
            self.close(owner)
            log = self._logs / log.name
        taken = served.folder / log.name
        try:
            log.replace(taken)
            os.utime(taken)  # now the newest, so that it is the one to go on with after a kill
        except FileNotFoundError as error:
            raise RefusedError(404, "this log is gone; open the scan again to see which there are") from error
        except OSError as error:
            raise storage_refusal(error) from error
        return taken

    def shelve_log(self, log: Path) -> None:
        """Put a log where other sessions find it."""
        with contextlib.suppress(OSError):
            log.replace(self._logs / log.name)

    def release_all(self) -> None:
        """Let the next process have all sessions; they stay on disk."""
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        for served in sessions:
            with served.lock:
                served.park()
                served.release()

    def _is_over(self, served: ServedSession) -> bool:
        if served.num_pending:
            return False
        return time.time() - served.used_at > self._settings.lease_seconds

    def _find_earlier(self) -> None:
        """Take over what an earlier process left, unless another one holds it."""
        for folder in sorted(self._open.iterdir()):
            try:
                served = ServedSession(folder.name, folder, _locked(folder))
            except (OSError, ClickvolError):
                continue
            try:
                place = folder / _RECORD
                served.record = ScanRecord.model_validate_json(place.read_bytes())
                served.used_at = place.stat().st_mtime
            except (OSError, ValidationError):
                served.used_at = 0.0  # it never had a scan
            self._sessions[served.key] = served
        self.sweep()

    def _remove_old_logs(self) -> None:
        oldest = time.time() - self._settings.keep_log_days * _SECONDS_PER_DAY
        for log in self._logs.glob(_LOGS):
            with contextlib.suppress(OSError):
                if log.stat().st_mtime < oldest:
                    log.unlink()


def _key_of(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY_LENGTH]


def _locked(folder: Path) -> int:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        lock_or_refuse(descriptor, "another process holds this session")
    except ConfigError:
        os.close(descriptor)
        raise
    return descriptor
