"""A session that a client holds: its folder, its scan, and what answers its clicks while it is in memory."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from clickvol.files.atomic import atomic_path
from clickvol.files.lock import acquire_lock
from clickvol.interactive.interactions import History, Shaping
from clickvol.interactive.session import Answer, InteractiveSession
from clickvol.io.volume import SaidModality
from clickvol.server.refusal import RefusedError
from clickvol.server.wire import StateOut
from clickvol.server.worker import IsCancelled

SESSION_ENDED = "there is no such session, or its lease is over; open the scan again"

ENDED_PREFIX = "ended-"
"""Folders with such names are deleted; no key begins like this."""

_RECORD = "session.json"
_LEASE = "lease.json"
_SCAN_COPY = "scan-copy.nii.gz"
_TOUCH_SECONDS = 5.0


class ScanRecord(BaseModel):
    """Which scan a session works on; what is kept on disk.

    Attributes:
        scan: path of the scan; for an upload its name in the session's folder.
        is_upload: whether it lies in the session's folder.
        upload_sha256: of the file that was uploaded, to know it again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    scan: str
    is_upload: bool
    series: str | None = None
    volume: int | None = None
    modality: SaidModality | None = None
    upload_sha256: str | None = None


class ServedSession:
    """A session that a client holds, in memory or parked on disk.

    Attributes:
        key: a hash of its id, and the name of the folder.
        record: its scan; None until there is one.
        session: what answers; None while it is parked. The model's thread sets it.
        history: that `state` describes.
        state: after the last change; None until it was opened in this process.
        unanswered: the last interaction, where its answer never reached anybody.
        num_pending: requests that wait for it or work with it.
        used_at: seconds since the epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder.name
        self.record: ScanRecord | None = None
        self.session: InteractiveSession | None = None
        self.history: History | None = None
        self.state: StateOut | None = None
        self.unanswered: Shaping | None = None
        self.num_pending = 0
        self.is_closed = False
        self.used_at = time.time()
        self._touched_at = 0.0
        self.lock: BaseFileLock = acquire_lock(folder / ".lock", "another process holds this session")

    @property
    def scan_path(self) -> Path:
        """Where its scan lies."""
        if self.record is None:
            raise RefusedError(404, SESSION_ENDED)
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
            for name in (_RECORD, _LEASE):
                with contextlib.suppress(OSError):
                    os.utime(self.folder / name)

    @property
    def scan_copy_path(self) -> Path:
        """Where its scan lies as NIfTI once somebody has asked for it."""
        return self.folder / _SCAN_COPY

    @property
    def lease_path(self) -> Path:
        """Where a protocol whose lease is more than its scan keeps the rest."""
        return self.folder / _LEASE

    def read_record(self) -> None:
        """Read what an earlier process left; a folder with neither scan nor lease is as good as expired."""
        self.used_at = 0.0
        for name in (_RECORD, _LEASE):
            with contextlib.suppress(OSError):
                self.used_at = max(self.used_at, (self.folder / name).stat().st_mtime)
        with contextlib.suppress(OSError, ValidationError):
            self.record = ScanRecord.model_validate_json((self.folder / _RECORD).read_bytes())

    def leave_place(self) -> None:
        """Give up the name of the folder, so that another session may have it at once."""
        place = self.folder.with_name(f"{ENDED_PREFIX}{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            self.folder = self.folder.rename(place)

    def forget_scan(self) -> None:
        """Delete its scan, so that another one can take its place; after `park`."""
        if self.record is not None and self.record.is_upload:
            if self.scan_path.is_dir():
                shutil.rmtree(self.scan_path, ignore_errors=True)
            else:
                self.scan_path.unlink(missing_ok=True)
        for name in (_RECORD, _SCAN_COPY):
            (self.folder / name).unlink(missing_ok=True)
        self.record, self.history, self.state = None, None, None

    def write_record(self, record: ScanRecord) -> None:
        """Keep which scan it is."""
        write_private(self.folder / _RECORD, record)
        self.record = record

    def add(self, session: InteractiveSession, interaction: Shaping, is_cancelled: IsCancelled) -> Answer:
        """Add an interaction, in the model's thread; one that cannot be used leaves the session unchanged.

        One that was being computed when another process died is in the record already; the client, or a proxy
        before it, sends it again, and then it is the same one.
        """
        unanswered, self.unanswered = self.unanswered, None
        object_id = interaction.object_id
        if interaction == unanswered:
            known = next(each for each in session.objects if each.id == object_id)
            return Answer(object_id, known.num_voxels, known.volume_ml, {}, ())
        return session.add(interaction, cancelled=is_cancelled)

    def park(self) -> None:
        """Forget what is in memory; in the model's thread."""
        if self.session is not None:
            self.session.close()
        self.session = None


def write_private(path: Path, content: BaseModel) -> None:
    """Write a JSON file for this user alone; OutputError when the disk refuses."""
    with atomic_path(path, ".json") as temporary:
        temporary.write_text(content.model_dump_json(), encoding="utf-8")
        temporary.chmod(0o600)


def shared_secret(path: Path) -> bytes:
    """Return the secret of a state folder; whoever comes first makes it."""
    if not path.exists():
        own = path.with_name(f"{path.name}-{secrets.token_hex(6)}")
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    return path.read_bytes()
