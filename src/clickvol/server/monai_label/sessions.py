"""The sessions behind the images that a client of MONAI Label names or uploads.

A name belongs to the client that gave it: its address and its token. The id of the session behind it is derived
from both, so that nothing has to be remembered, and another client's name leads nowhere.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from clickvol.interactive.record import scan_hash
from clickvol.io.formats import read_volume
from clickvol.server.http.security import client_of
from clickvol.server.monai_label.images import list_images, record_of_image
from clickvol.server.refusal import RefusedError
from clickvol.server.scans import store
from clickvol.server.served_session import ScanRecord, ServedSession
from clickvol.server.sessions import Sessions

_CHUNK_BYTES = 1 << 20


async def _sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


class ImageClient:
    """Who asks, and the sessions on that client's images.

    Args:
        request: of the client, who may hang up.
        sessions: of the server.
    """

    def __init__(self, request: Request, sessions: Annotated[Sessions, Depends(_sessions_of)]) -> None:
        self.sessions = sessions
        self.is_gone = request.is_disconnected
        self._client = client_of(request)

    async def open_session(self, file: UploadFile) -> str:
        """Open a session on an upload; return its id."""
        session_id, _ = await self.sessions.open(_uploaded_record(file), self.is_gone)
        return session_id

    async def open_upload(self, file: UploadFile) -> ServedSession:
        """Return this client's session on an upload: the same one for the same file."""
        sha256 = await self.sessions.on_files(lambda _: _sha256_of(file))
        session_id = self.sessions.derived_id("upload", self._client, sha256)
        return await self.sessions.open_once(session_id, _uploaded_record(file), self.is_gone)

    async def open_named(self, file: UploadFile, image: str) -> ServedSession:
        """Return this client's session on an upload with a name.

        Raises:
            RefusedError: 409 when the name is that of another scan, under the root or of this client.
        """
        root = self.sessions.settings.root
        listed = await self.sessions.on_files(lambda _: list_images(root))
        if image in listed.images:
            raise RefusedError(409, "a scan under the root has this name already; upload it under another one")
        served = await self.sessions.open_once(self._named(image), _uploaded_record(file), self.is_gone)
        sha256 = await self.sessions.on_files(lambda _: _sha256_of(file))
        if served.record is None or served.record.upload_sha256 != sha256:
            await self._check_same_scan(served, file)
        return served

    async def session_on(self, image: str) -> ServedSession:
        """Return this client's session on an image that it has uploaded or that lies under the root.

        Raises:
            RefusedError: 404 when there is no such image.
        """
        named = self.sessions.find(self._named(image))
        if named is not None:
            return named
        root = self.sessions.settings.root

        def record_of(folder: Path) -> ScanRecord:
            return record_of_image(root, image, folder)

        session_id = self.sessions.derived_id("root", self._client, image)
        return await self.sessions.open_once(session_id, record_of, self.is_gone)

    async def file_of(self, image: str) -> Path | None:
        """Return the file of an image under the root; None where it is a series or an upload."""
        if self.sessions.find(self._named(image)) is not None:
            return None
        root = self.sessions.settings.root
        with tempfile.TemporaryDirectory() as folder:
            record = await self.sessions.on_files(lambda _: record_of_image(root, image, Path(folder)))
        return Path(record.scan) if record.series is None else None

    def end(self, image: str) -> None:
        """End the session on an image that this client has uploaded.

        Raises:
            RefusedError: 404 when there is none.
        """
        self.sessions.end(self.sessions.get(self._named(image)))

    def describe(self, session_id: str) -> dict[str, Any]:
        """Describe a session and renew its lease.

        Raises:
            RefusedError: 404 when there is none.
        """
        served = self.sessions.get(session_id)
        return {
            "name": session_id,
            "expiry": self.sessions.settings.lease_seconds,
            "last_access_ts": int(served.used_at),
            "busy": served.num_pending > 0,
        }

    def _named(self, image: str) -> str:
        return self.sessions.derived_id("name", self._client, image)

    async def _check_same_scan(self, served: ServedSession, file: UploadFile) -> None:
        with tempfile.TemporaryDirectory(dir=served.folder, prefix="work-") as folder:
            path = await self.sessions.on_files(lambda _: store(file, Path(folder), "scan"))
            theirs = await self.sessions.on_files(
                lambda _: scan_hash(read_volume(path, limits=self.sessions.limits))
            )
        ours, _ = await self.sessions.run(served, lambda session, _: session.scan.volume)
        if theirs != await self.sessions.on_files(lambda _: scan_hash(ours)):
            raise RefusedError(
                409, "another scan was uploaded under this name; give this one another name, or delete that one"
            )


def _uploaded_record(file: UploadFile) -> Callable[[Path], ScanRecord]:
    def stored(folder: Path) -> ScanRecord:
        return ScanRecord(scan=store(file, folder, "scan").name, is_upload=True, upload_sha256=_sha256_of(file))

    return stored


def _sha256_of(file: UploadFile) -> str:
    file.file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
