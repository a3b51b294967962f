"""Series of an archive that speaks DICOMweb: listed by QIDO-RS, fetched by WADO-RS, masks stored by STOW-RS.

What is fetched is checked against the archive's own list before and after, so that a series that is only half
there, or that changes meanwhile, is refused. Certificates are verified; who asks is told by the environment,
never by the address, which shells and logs keep.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from clickvol.errors import ArchiveError, ConfigError, OutputError, require
from clickvol.files.limits import ReadLimits
from clickvol.io.dicom.reading.series import SeriesSummary

if TYPE_CHECKING:
    import requests

USER_VARIABLE = "CLICKVOL_DICOMWEB_USER"
PASSWORD_VARIABLE = "CLICKVOL_DICOMWEB_PASSWORD"
TOKEN_VARIABLE = "CLICKVOL_DICOMWEB_TOKEN"

SCAN_MODALITIES = ("CT", "MR", "PT")

_SCHEMES = {"dicomweb": "https", "dicomweb+http": "http", "https": "https", "http": "http"}
_UID = re.compile(r"[0-9.]{1,64}")  # PS3.5, 9.1; components with a leading zero are met
_TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, and between two pieces of an answer
_PAGE = 1000
_MAX_SERIES = 5_000
_END_BYTES = 16


@dataclass(frozen=True, slots=True)
class RemoteSeries:
    """A series of an archive: the study that it belongs to, and what it is."""

    study_uid: str
    summary: SeriesSummary


def is_dicomweb(text: str) -> bool:
    """Tell whether what was given as a scan is the address of an archive: dicomweb:// or dicomweb+http://."""
    return text.partition("://")[0] in ("dicomweb", "dicomweb+http") and "://" in text


class DicomWebArchive:
    """An archive.

    The address is dicomweb://HOST[:PORT]/PATH, which is https; dicomweb+http:// for one without TLS; https://
    and http:// as they are. User, password or token are looked up in the environment.

    Raises:
        ConfigError: for an address that is none, or with a password in it, and for half a pair of user and
            password.
        ArchiveError: when the packages are not installed.
    """

    def __init__(self, address: str, environment: Mapping[str, str] = os.environ) -> None:
        parts = _checked_address(address)
        self.address = f"{_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}"
        require("dicomweb_client", extra="archive", purpose="a DICOMweb archive", error=ArchiveError)
        from dicomweb_client.api import DICOMwebClient

        self._client = DICOMwebClient(
            self.address,
            session=_session(environment),
            timeout=_TIMEOUT_SECONDS,
            permissive_uid=True,
            callback=self._watch_end,
        )
        self._client.host = parts.netloc  # without it, requests carry a Host without its port
        self._client.set_http_retry_params(retry=False)
        self._last_bytes = b""

    def find_series(self, series: str | None, study: str | None) -> RemoteSeries:
        """Return one series of the archive.

        By its SeriesInstanceUID, in all studies, or with a study by its SeriesNumber; None takes the only CT,
        MR or PET of the study. ConfigError when nothing says which; ArchiveError when there is none or there
        are several.
        """
        if study is None and (series is None or "." not in series):
            raise ConfigError(
                "an archive holds many scans; name one with --series UID, or --study UID and --series NUMBER"
            )
        for uid in filter(None, (study, series)):
            _check_uid(uid)
        filters = {"SeriesInstanceUID": series} if series is not None and "." in series else {}
        listed = self.list_series(study, **filters)
        if series is None:
            matching = [one for one in listed if one.summary.modality in SCAN_MODALITIES]
        elif filters:
            matching = [one for one in listed if one.summary.uid == series]
        else:
            matching = [one for one in listed if str(one.summary.number) == series]
        if len(matching) == 1:
            return matching[0]
        what = f"series {series}" if series is not None else "CT, MR or PET series"
        where = self.address if study is None else f"the study {study} of {self.address}"
        if not matching:
            known = " ".join(str(one.summary) for one in listed)
            raise ArchiveError(
                f"there is no {what} in {where}; {f'there are {known}' if known else 'check the UID'}"
            )
        if study is None:
            studies = ", ".join(one.study_uid for one in matching)
            raise ArchiveError(f"{where} has {what} in several studies ({studies}); give one with --study UID")
        known = " ".join(str(one.summary) for one in matching)
        raise ArchiveError(f"{where} has several {what}: {known}; give one with --series UID")

    def list_series(self, study: str | None = None, **filters: str) -> list[RemoteSeries]:
        """Return the series of a study or of the whole archive, at most 5000; filters as Modality="CT"."""
        asked = {"search_filters": filters, "limit": _PAGE, "fields": _WANTED}
        search = partial(self._client.search_for_series, study, **asked)
        with self._telling("listing its series"):
            records = _all_pages(search, ("0020000D", "0020000E"), _MAX_SERIES)
            return [_series_of(record, study) for record in records]

    def instance_uids(self, series: RemoteSeries) -> frozenset[str]:
        """Return the SOPInstanceUIDs that the archive says a series has.

        Raises:
            ArchiveError: when the archive does not answer.
        """
        one = (series.study_uid, series.summary.uid)
        search = partial(self._client.search_for_instances, *one, limit=_PAGE)
        with self._telling("listing the images of the series"):
            return frozenset(_value(record, "00080018") for record in _all_pages(search, ("00080018",)))

    def fetch(self, series: RemoteSeries, folder: Path, *, limits: ReadLimits | None = None) -> None:
        """Write the images of a series to a folder, empty before and after a failure, as the archive has them.

        Raises:
            ArchiveError: when the archive does not answer, sends less or more than it lists, or the series
                changes meanwhile.
            ScanTooLargeError: more than the limits allow.
            OutputError: when the disk refuses.
        """
        try:
            expected = self.instance_uids(series)
            received = self._receive(series, folder, limits)
            if received == expected == self.instance_uids(series):
                return
            raise ArchiveError(
                f"{self.address} listed {len(expected)} images of the series and sent {len(received)}, so that "
                "it is not whole there or is changing; wait until it is stored, and try again"
            )
        except BaseException:
            for file in folder.iterdir():
                file.unlink()
            raise

    def _receive(self, series: RemoteSeries, folder: Path, limits: ReadLimits | None) -> frozenset[str]:
        import requests

        uids, num_bytes = set(), 0
        with self._telling("fetching the series"):
            images = self._client.iter_series(
                series.study_uid, series.summary.uid, media_types=(("application/dicom", "*"),)
            )
            for number, image in enumerate(images):
                # The last image of an answer that broke off may be its first bytes alone.
                if image.get("SeriesInstanceUID") is None and not self._has_ended:
                    raise requests.exceptions.ChunkedEncodingError
                if str(image.SeriesInstanceUID) != series.summary.uid:
                    raise ArchiveError(f"{self.address} sent an image of another series; tell its owner")
                place = folder / f"{number:06d}.dcm"
                image.save_as(place, enforce_file_format=True)
                uids.add(str(image.SOPInstanceUID))
                num_bytes += place.stat().st_size
                if limits is not None:
                    limits.check_bytes(num_bytes, f"the series in {self.address}")
            if not self._has_ended:
                raise requests.exceptions.ChunkedEncodingError
        return frozenset(uids)

    @property
    def _has_ended(self) -> bool:
        return self._last_bytes.rstrip().endswith(b"--")  # as multipart messages do; RFC 2046, 5.1.1

    def _watch_end(self, response: "requests.Response", *_: object, **__: object) -> None:
        """Remember how an answer ends: where a line breaks, a last image may be cut off and still be read."""
        pieces = response.iter_content

        def watched(*arguments: Any, **words: Any) -> Iterator[bytes]:  # noqa: ANN401
            for piece in pieces(*arguments, **words):
                self._last_bytes = (self._last_bytes + piece)[-_END_BYTES:]
                yield piece

        response.iter_content = watched

    def store(self, paths: Sequence[Path]) -> list[str]:
        """Store DICOM files; return the address of each, .../studies/UID/series/UID/instances/UID."""
        import pydicom

        images = [pydicom.dcmread(path) for path in paths]
        with self._telling("storing"):
            answer = self._client.store_instances(images)
            if answer.get("FailedSOPSequence"):
                reason = int(answer.FailedSOPSequence[0].get("FailureReason", 0))
                raise ArchiveError(
                    f"{self.address} does not store the mask (reason {reason:04X}H of PS3.18); see its own log"
                )
        return [
            f"{self.address}/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}/instances/"
            f"{one.SOPInstanceUID}"
            for one in images
        ]

    @contextlib.contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Turn what goes wrong with an archive into one line."""
        import requests
        from pydicom.errors import InvalidDicomError

        try:
            yield
        except requests.HTTPError as error:
            raise ArchiveError(self._refusal(error, doing)) from error
        except requests.exceptions.SSLError as error:
            raise ArchiveError(
                f"the certificate of {self.address} is not one that this machine trusts, or there is no TLS; "
                "set REQUESTS_CA_BUNDLE to the file of its authority, or say dicomweb+http:// to go without TLS"
            ) from error
        except requests.TooManyRedirects as error:
            raise ArchiveError(f"{self.address} sends to another address; give that one") from error
        except requests.Timeout as error:
            raise ArchiveError(f"{self.address} does not answer ({doing}); try again later") from error
        except (requests.exceptions.ChunkedEncodingError, InvalidDicomError) as error:
            raise ArchiveError(
                f"the connection to {self.address} broke ({doing}); nothing was kept, try again"
            ) from error
        except requests.exceptions.JSONDecodeError as error:
            raise ArchiveError(f"{self.address} does not speak DICOMweb; check the path") from error
        except requests.RequestException as error:
            raise ArchiveError(
                f"cannot reach {self.address} ({doing}); check host and port, and whether it speaks TLS"
            ) from error
        except OSError as error:
            raise OutputError(f"cannot keep what {self.address} sends: {error.strerror}; make room") from error
        except (ValueError, KeyError, TypeError, AttributeError, LookupError) as error:
            raise ArchiveError(
                f"{self.address} answers what is not DICOMweb ({doing}: {error}); check the path"
            ) from error

    def _refusal(self, error: "requests.HTTPError", doing: str) -> str:
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"{self.address} refuses who asks ({status}); set {USER_VARIABLE} and {PASSWORD_VARIABLE}, or "
                f"{TOKEN_VARIABLE}, to what it knows"
            )
        if status in (400, 404, 405):
            return f"{self.address} has nothing there ({status}, {doing}); check the path and the UIDs"
        return f"{self.address} answers {status} ({doing}); see its own log"


_WANTED = ("SeriesDescription", "SeriesNumber", "Modality", "NumberOfSeriesRelatedInstances")


def _checked_address(address: str) -> SplitResult:
    try:
        parts = urlsplit(address.strip())
        is_whole = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole, parts = False, urlsplit("")
    if not is_whole or parts.query or parts.fragment:
        raise ConfigError(
            f"{address.strip()!r} is not the address of an archive; give dicomweb://HOST[:PORT]/PATH, or "
            "dicomweb+http:// where it has no TLS"
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "an address is kept by shells and logs, so that no password belongs in it; set "
            f"{USER_VARIABLE} and {PASSWORD_VARIABLE} instead"
        )
    return parts


def _session(environment: Mapping[str, str]) -> "requests.Session":
    import requests

    user, password = environment.get(USER_VARIABLE), environment.get(PASSWORD_VARIABLE)
    token = environment.get(TOKEN_VARIABLE)
    if bool(user) != bool(password):
        raise ConfigError(f"{USER_VARIABLE} and {PASSWORD_VARIABLE} go together; set both or neither")
    session = requests.Session()
    session.max_redirects = 0  # they would lead credentials and patients elsewhere, or away from TLS
    if user and password:
        session.auth = (user.encode(), password.encode())
    elif token:
        session.auth = _Bearer(token)
    return session


@dataclass(frozen=True, slots=True)
class _Bearer:
    """Sends a token; as `auth`, so that requests does not put one from ~/.netrc in its place."""

    token: str

    def __call__(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _check_uid(text: str) -> None:
    if _UID.fullmatch(text) is None:
        raise ConfigError(f"{text[:80]!r} is not a UID; it has digits and dots, at most 64")


def _all_pages(
    search: Callable[..., list[dict[str, Any]]], uid_tags: tuple[str, ...], most: int | None = None
) -> list[dict[str, Any]]:
    """Return all records of a search; one that ignores the offset is asked twice, not for ever."""
    records: dict[tuple[str, ...], dict[str, Any]] = {}
    while most is None or len(records) < most:
        page = {
            tuple(_value(record, tag) for tag in uid_tags): record for record in search(offset=len(records))
        }
        if not page.keys() - records.keys():
            break
        records |= page
    return list(records.values())


def _series_of(record: dict[str, Any], study: str | None) -> RemoteSeries:
    number, count = _value(record, "00200011"), _value(record, "00201209")
    return RemoteSeries(
        _value(record, "0020000D") or study or "",
        SeriesSummary(
            uid=_value(record, "0020000E"),
            number=int(number) if number else None,
            description=_value(record, "0008103E"),
            modality=_value(record, "00080060") or "unknown",
            num_slices=int(count) if count else 0,
        ),
    )


def _value(record: dict[str, Any], tag: str) -> str:
    """Return an attribute of a DICOM JSON record as text; "" where there is none."""
    values = record.get(tag, {}).get("Value") or [""]
    return "" if values[0] is None else str(values[0])
