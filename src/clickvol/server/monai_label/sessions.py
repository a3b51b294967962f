"""The sessions behind the images that a client of MONAI Label names or uploads.

A name belongs to the client that gave it: its address and its token. The id of the session behind it is derived
from both, so that nothing has to be remembered, and another client's name leads nowhere.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import UploadFile

from clickvol.interactive.record import scan_hash
from clickvol.io.dicom.remote.dicomweb import RemoteSeries
from clickvol.io.formats import read_volume
from clickvol.server.dependencies import All
from clickvol.server.http.security import client_of
from clickvol.server.monai_label.archive_images import ArchiveImages, fingerprint_of
from clickvol.server.monai_label.datastore import Datastore
from clickvol.server.monai_label.images import ImageList, list_images, record_of_image
from clickvol.server.monai_label.labels import SavedLabel
from clickvol.server.refusal import RefusedError
from clickvol.server.scans import store
from clickvol.server.served_session import ScanRecord, ServedSession

T = TypeVar("T")

_CHUNK_BYTES = 1 << 20
_SERIES = "series"
_HASH_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Images:
    """What a client may name: under the root, in the archive (by UID), and its own uploads (by name)."""

    root: ImageList
    archive: dict[str, RemoteSeries]
    uploads: frozenset[str]

    @property
    def shared_names(self) -> list[str]:
        """Those that every client may name, sorted."""
        return sorted({*self.root.images, *self.archive})

    @property
    def names(self) -> list[str]:
        """All of them, sorted."""
        return sorted({*self.shared_names, *self.uploads})


class ImageClient:
    """Who asks, and the sessions on that client's images."""

    def __init__(self, request: Request, sessions: All) -> None:
        self.sessions = sessions
        self.is_gone = request.is_disconnected
        self.client = client_of(request)
        self.datastore: Datastore = request.app.state.datastore
        self._archive = self.datastore.archive

    async def images(self) -> Images:
        """Return what this client may name: what lies under the root or in the archive, and its own uploads."""
        listed = await self._under_root()
        series = {} if self._archive is None else await self._archive.list_images()
        names = self.datastore.uploads.get(self.client, set())
        uploads = frozenset(name for name in names if self.sessions.find(self._named(name)) is not None)
        return Images(listed, series, uploads)

    async def open_session(self, files: Sequence[UploadFile]) -> str:
        """Open a session on an upload of one file, or of the files of one DICOM series; return its id."""
        record_of = _uploaded_record(files[0]) if len(files) == 1 else partial(_uploaded_series, files)
        session_id, _ = await self.sessions.open(record_of, self.is_gone)
        return session_id

    async def open_upload(self, file: UploadFile) -> ServedSession:
        """Return this client's session on an upload: the same one for the same file."""
        sha256 = await self.sessions.on_files(lambda _: _sha256_of(file))
        session_id = self.sessions.derived_id("upload", self.client, sha256)
        return await self.sessions.open_once(session_id, _uploaded_record(file), self.is_gone)

    async def open_named(self, file: UploadFile, image: str) -> ServedSession:
        """Return this client's session on an upload with a name; 409 when it is that of another scan."""
        listed = await self._under_root()
        if image in listed.images or await self._in_archive(image) is not None:
            raise RefusedError(409, "a scan of this server has this name already; upload it under another one")
        served = await self.sessions.open_once(self._named(image), _uploaded_record(file), self.is_gone)
        sha256 = await self.sessions.on_files(lambda _: _sha256_of(file))
        if served.record is None or served.record.upload_sha256 != sha256:
            await self._check_same_scan(served, file)
        self.datastore.uploads.setdefault(self.client, set()).add(image)
        return served

    async def session_on(self, image: str) -> ServedSession:
        """Return this client's session on an image that it uploaded, or of archive or root; 404 without."""
        named = self.sessions.find(self._named(image))
        if named is not None:
            return named
        if self._archive is not None and (series := await self._in_archive(image)) is not None:
            return await self._session_of(self._archive, series)
        session_id = self.sessions.derived_id("root", self.client, image)
        record_of = partial(record_of_image, self.sessions.settings.root, image)
        return await self.sessions.open_once(session_id, record_of, self.is_gone)

    async def _under_root(self) -> ImageList:
        return await self.sessions.on_files(lambda _: list_images(self.sessions.settings.root))

    async def _in_archive(self, image: str) -> RemoteSeries | None:
        return None if self._archive is None else await self._archive.find(image)

    async def labels(self, images: Sequence[str]) -> dict[str, dict[str, SavedLabel]]:
        """Return the last version of each label of each of some images, by tag."""
        folder = self.datastore.labels
        if folder is None:
            return {image: {} for image in images}
        names = {image: self.label_name(image) for image in images}
        return await self.sessions.on_files(
            lambda _: {image: folder.labels(name) for image, name in names.items()}
        )

    async def check_is_known(self, image: str) -> None:
        """Refuse, with 404, a name that leads nowhere."""
        if image not in (await self.images()).names:
            raise RefusedError(404, "there is no such image here; see /datastore/ for those there are")

    async def with_file(self, served: ServedSession, file: UploadFile, read: Callable[[Path], T]) -> T:
        """Read an uploaded file, which is gone afterwards; 415 for a suffix that cannot be read."""
        with tempfile.TemporaryDirectory(dir=served.folder, prefix="work-") as folder:
            return await self.sessions.on_files(lambda _: read(store(file, Path(folder), "given")))

    def label_name(self, image: str) -> str:
        """Return the name under which labels of an image are kept; uploads of one name do not share one."""
        named = self.sessions.find(self._named(image))
        if named is None or named.record is None or named.record.upload_sha256 is None:
            return image
        return f"{image}@{named.record.upload_sha256[:_HASH_SHOWN]}"

    async def _session_of(self, archive: ArchiveImages, series: RemoteSeries) -> ServedSession:
        """Return this client's session on a series, which is fetched once, and again when it has changed."""
        session_id = self.sessions.derived_id("archive", self.client, series.summary.uid)
        async with self.sessions.only_opening(session_id):
            served = self.sessions.find(session_id)
            if served is not None and served.record is not None:
                if served.record.upload_sha256 == fingerprint_of(series):
                    return served
                self.sessions.end(served)
            async with archive.fetched(series) as record_of:
                return (await self.sessions.open(record_of, self.is_gone, session_id))[1]

    async def file_of(self, image: str) -> Path | None:
        """Return the file of an image under the root; None where it is a series or an upload."""
        if self.sessions.find(self._named(image)) is not None or await self._in_archive(image) is not None:
            return None
        root = self.sessions.settings.root
        with tempfile.TemporaryDirectory() as folder:
            record = await self.sessions.on_files(lambda _: record_of_image(root, image, Path(folder)))
        return Path(record.scan) if record.series is None else None

    def end(self, image: str) -> None:
        """End the session on an image that this client has uploaded; RefusedError 404 when there is none."""
        self.sessions.end(self.sessions.get(self._named(image)))

    def describe(self, session_id: str) -> dict[str, Any]:
        """Describe a session and renew its lease; RefusedError 404 when there is none."""
        served = self.sessions.get(session_id)
        return {
            "name": session_id,
            "expiry": self.sessions.settings.lease_seconds,
            "last_access_ts": int(served.used_at),
            "busy": served.num_pending > 0,
        }

    def _named(self, image: str) -> str:
        return self.sessions.derived_id("name", self.client, image)

    async def _check_same_scan(self, served: ServedSession, file: UploadFile) -> None:
        limits = self.sessions.limits
        theirs = await self.with_file(served, file, lambda path: scan_hash(read_volume(path, limits=limits)))
        ours, _ = await self.sessions.run(served, lambda session, _: session.scan.volume)
        if theirs != await self.sessions.on_files(lambda _: scan_hash(ours)):
            raise RefusedError(
                409, "another scan was uploaded under this name; give this one another name, or delete that one"
            )


def _uploaded_series(files: Sequence[UploadFile], folder: Path) -> ScanRecord:
    series = folder / _SERIES
    series.mkdir(mode=0o700)
    for number, file in enumerate(files):
        file.file.seek(0)
        with (series / f"{number:06d}.dcm").open("xb") as target:
            shutil.copyfileobj(file.file, target, _CHUNK_BYTES)
    return ScanRecord(scan=_SERIES, is_upload=True)


def _uploaded_record(file: UploadFile) -> Callable[[Path], ScanRecord]:
    def stored(folder: Path) -> ScanRecord:
        return ScanRecord(scan=store(file, folder, "scan").name, is_upload=True, upload_sha256=_sha256_of(file))

    return stored


def _sha256_of(file: UploadFile) -> str:
    file.file.seek(0)
    return hashlib.file_digest(file.file, "sha256").hexdigest()  # type: ignore[arg-type]  # a file of starlette's
