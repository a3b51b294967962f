"""The scans of an archive, under their SeriesInstanceUIDs: listed and fetched when a client asks for them."""

import contextlib
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from clickvol.files.limits import ReadLimits
from clickvol.io.dicom.remote.dicomweb import SCAN_MODALITIES, DicomWebArchive, RemoteSeries
from clickvol.server.refusal import RefusedError
from clickvol.server.served_session import ScanRecord

T = TypeVar("T")

# Threads of their own: an archive that is slow holds up nobody's clicks in other scans. Chosen.
_NUM_THREADS = 4

_LONGEST_FETCH_SECONDS = 3600.0

_UID = re.compile(r"\d[\d.]{1,63}")
_FOLDER = "series"
_STAGING = "fetching"


class ArchiveImages:
    """The archive of a server; credentials are in the environment, see `DicomWebArchive`.

    Raises:
        ConfigError: when the address is none.
        ArchiveError: when the packages for archives are not installed.
    """

    def __init__(self, address: str, state_folder: Path, limits: ReadLimits) -> None:
        self._address = address
        self._staging = state_folder / _STAGING
        self._limits = limits
        self._threads = anyio.CapacityLimiter(_NUM_THREADS)
        DicomWebArchive(address)
        self._remove_abandoned()

    async def list_images(self) -> dict[str, RemoteSeries]:
        """Return all CT, MR and PET series by their SeriesInstanceUIDs, at most 5000."""
        listed = await self._ask(lambda archive: archive.list_series())
        return {s.summary.uid: s for s in listed if s.summary.modality in SCAN_MODALITIES}

    async def find(self, image: str) -> RemoteSeries | None:
        """Return the series with a UID; None where there is none, 409 where several studies have it."""
        if _UID.fullmatch(image) is None or "." not in image:
            return None

        listed = await self._ask(lambda archive: archive.list_series(SeriesInstanceUID=image))
        matching = [series for series in listed if series.summary.uid == image]
        if len(matching) > 1:
            raise RefusedError(409, "the archive has this series in several studies; tell its owner")
        return matching[0] if matching else None

    @contextlib.asynccontextmanager
    async def fetched(self, series: RemoteSeries) -> AsyncIterator[Callable[[Path], ScanRecord]]:
        """Fetch a series for a block; what it lends moves the images into the folder of a session."""
        self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._staging))
        try:
            await self._ask(lambda archive: archive.fetch(series, folder, limits=self._limits))
            yield lambda place: _moved(folder, place, series)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def store(self, content: bytes) -> None:
        """Store a DICOM file."""

        def stored(archive: DicomWebArchive) -> None:
            with tempfile.TemporaryDirectory(dir=self._staging.parent) as folder:
                place = Path(folder) / "label.dcm"
                place.write_bytes(content)
                archive.store([place])

        await self._ask(stored)

    def _remove_abandoned(self) -> None:
        """Remove what a server that was killed had half fetched."""
        oldest = time.time() - _LONGEST_FETCH_SECONDS
        with contextlib.suppress(OSError):
            for folder in self._staging.iterdir():
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)

    async def _ask(self, question: Callable[[DicomWebArchive], T]) -> T:
        # An object for each question: its connection is for one thread.
        return await anyio.to_thread.run_sync(
            lambda: question(DicomWebArchive(self._address)), limiter=self._threads
        )


def fingerprint_of(series: RemoteSeries) -> str:
    """Return what changes when a series in an archive grows or shrinks."""
    text = f"{series.study_uid} {series.summary.uid} {series.summary.num_slices}"
    return hashlib.sha256(text.encode()).hexdigest()


def _moved(folder: Path, place: Path, series: RemoteSeries) -> ScanRecord:
    folder.rename(place / _FOLDER)
    return ScanRecord(
        scan=_FOLDER, is_upload=True, series=series.summary.uid, upload_sha256=fingerprint_of(series)
    )
