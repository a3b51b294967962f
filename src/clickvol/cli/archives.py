"""The two ends of `clickvol segment`: a scan from a file or an archive, a mask to a file or an archive."""

import contextlib
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from clickvol.errors import ArchiveError, ClickvolError, ConfigError
from clickvol.io.dicom.remote.dicomweb import DicomWebArchive, is_dicomweb
from clickvol.io.dicom.remote.sending import DicomNode, send_files

if TYPE_CHECKING:
    from clickvol.predict.segmentation_request import SegmentationRequest

_DICOM_SUFFIX = ".dcm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where a scan is read from and a mask written to.

    Attributes:
        scan: file or folder; of an archive, one that is empty until the scan is fetched.
        mask: file; a temporary one where nobody asks for it.
        is_stored: whether the mask is stored there.
        node: that the mask is sent to.
        is_kept: whether the user has asked for the file.
    """

    scan: Path
    mask: Path
    series: str | None
    archive: DicomWebArchive | None
    study: str | None
    is_stored: bool
    node: DicomNode | None
    is_kept: bool

    @property
    def places(self) -> dict[str, Any]:
        """What a request says of them."""
        return {"scan": self.scan, "mask": self.mask, "series": self.series}

    def run(self, request: "SegmentationRequest", *, as_json: bool, quiet: bool) -> None:
        """Fetch the scan, segment it, deliver the mask, and print what came of it; a mask asked for stays."""
        from clickvol.cli.progress import show_stages
        from clickvol.cli.result import print_result
        from clickvol.predict.segmentation_request import run_request

        with show_stages(quiet=quiet) as on_stage:
            result = run_request(request, on_stage=on_stage, fetch=self._fetch)
            if self.is_stored or self.node is not None:
                on_stage("storing the mask")
            places = self._deliver()
        print_result(
            result,
            as_json=as_json,
            quiet=quiet,
            scan=None if self.archive is None else self.archive.address,
            has_file=self.is_kept,
            places=places,
        )

    def _fetch(self) -> None:
        if self.archive is not None:
            self.archive.fetch(self.archive.find_series(self.series, self.study), self.scan)

    def _deliver(self) -> list[str]:
        places = []
        try:
            if self.is_stored and self.archive is not None:
                places += self.archive.store([self.mask])
            if self.node is not None:
                send_files([self.mask], self.node)
                places.append(str(self.node))
        except ArchiveError as error:
            done = ", ".join([str(self.mask)] * self.is_kept + places)
            raise ArchiveError(f"{error}; {f'the mask is in {done}' if done else 'no mask is kept'}") from error
        return places


@contextlib.contextmanager
def ends_of(
    scan: str, output: Path | None, *, series: str | None, study: str | None, store: bool, send_to: str | None
) -> Iterator[Ends]:
    """Lend the two ends for a block; what was fetched is gone after it, also after Ctrl-C or a kill."""
    archive = DicomWebArchive(scan) if is_dicomweb(scan) else None
    node = None if send_to is None else DicomNode.parse(send_to)
    if archive is None and (store or study is not None):
        raise ConfigError(
            f"{'--store' if store else '--study'} goes with the address of an archive, dicomweb://HOST/PATH, "
            "which the scan is not"
        )
    if output is None and not (store or node is not None):
        raise ConfigError("nothing says where the mask goes; give a file with --output, or --store or --send")
    if output is not None and output.suffix.lower() != _DICOM_SUFFIX and (store or node is not None):
        raise ConfigError(
            f"archives take masks as DICOM, and {output.name!r} is none; name it .dcm, or leave out -o"
        )
    with tempfile.TemporaryDirectory(prefix="clickvol-") as name, _ended_by_kill():
        folder = Path(name) / "scan"
        folder.mkdir()
        ends = Ends(
            scan=Path(scan) if archive is None else folder,
            mask=output or Path(name) / f"mask{_DICOM_SUFFIX}",
            series=series,
            archive=archive,
            study=study,
            is_stored=store,
            node=node,
            is_kept=output is not None,
        )
        try:
            yield ends
        except ClickvolError as error:
            if archive is None or name not in str(error):
                raise
            raise type(error)(str(error).replace(str(folder), archive.address)) from error


@contextlib.contextmanager
def _ended_by_kill() -> Iterator[None]:
    """Let a polite kill end a block as Ctrl-C does, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
