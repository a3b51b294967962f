"""A session on another machine: the methods of `InteractiveSession`, answered by a server. Torch-free.

    from clickvol.server.client import RemoteSession

    with RemoteSession("http://127.0.0.1:8000") as session:
        session.set_volume(read_volume("scan.nii.gz"))
        session.click(VoxelPoint.from_ijk(120, 88, 41))
        write_mask(session.mask(), "mask.nii.gz")

No proxy and no redirect is followed, so that a scan goes to the server that was named and nowhere else.
"""

import http.client
import json
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from clickvol.errors import CancelledError, ClickError, ClickvolError, ConfigError, OutputError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.io.formats import write_volume
from clickvol.io.nifti import read_stored
from clickvol.io.volume import Mask, Volume
from clickvol.server.wire import (
    AddedOut,
    AnswerOut,
    ChangedOut,
    ClickedOut,
    ErrorOut,
    ObjectOut,
    OpenedOut,
    ResumableOut,
    StateOut,
)

ModelT = TypeVar("ModelT", bound=BaseModel)

# A first click in a large scan on a slow machine takes minutes; a server that says nothing for longer is gone.
_TIMEOUT_SECONDS = 600.0

_WRITABLE = ("uint8", "int16", "uint16", "int32", "float32", "float64")


class RemoteError(ClickvolError):
    """A server that cannot be reached, or that turned a request down.

    Args:
        status: HTTP status; 0 where no answer came.
        message: one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    content: bytes


class RemoteSession:
    """Clicks on one scan, answered by a server. Not for several threads at once.

    Args:
        address: of the server, "http://host:port" or "https://host:port".
        token: where the server asks for one.
        timeout_seconds: how long to wait for an answer.

    Raises:
        ConfigError: when the address is none.
    """

    def __init__(
        self, address: str, *, token: str | None = None, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{address!r} is no address of a server; give one such as http://127.0.0.1:8000")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_seconds)
        self._base = parts.path.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._volume: Volume | None = None
        self._opened: OpenedOut | None = None
        self._state: StateOut | None = None

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def set_volume(self, volume: Volume, *, modality: str | None = None) -> None:
        """Send a scan; a session on an earlier one ends.

        Args:
            volume: the scan; sent as NIfTI, without its name.
            modality: "CT", "MR" or "PT" where the file does not say it or says it wrongly.

        Raises:
            ClickvolError: when the server refuses it or cannot be reached.
        """
        self._end()
        given = modality or (None if volume.modality == "unknown" else volume.modality)
        with tempfile.TemporaryDirectory(prefix="clickvol-") as folder:
            place = Path(folder) / "scan.nii.gz"
            array = volume.array
            if array.dtype.name not in _WRITABLE:
                array = array.astype("int16" if array.dtype.itemsize == 1 else "float64")
            write_volume(array, volume.grid, place)
            reply = self._upload(place, {} if given is None else {"modality": given})
        self._take(_parsed(OpenedOut, reply))
        self._volume = volume

    def open_path(self, path: str, *, series: str | None = None) -> None:
        """Open a scan that the server has under its root.

        Args:
            path: relative to the root, or absolute and under it.
            series: which DICOM series of a folder with several.

        Raises:
            ClickvolError: when the server refuses it or cannot be reached.
        """
        self._end()
        wish = {"path": path} | ({} if series is None else {"series": series})
        self._take(_parsed(OpenedOut, self._call("POST", "/api/sessions", wish)))
        self._volume = None

    def click(
        self, point: VoxelPoint | WorldPointRAS, *, positive: bool = True, object_id: int = 1
    ) -> AnswerOut:
        """Add a click to an object and answer all its clicks.

        Args:
            point: a voxel of the scan, or a place in the patient.
            positive: inside the object; False where the object is not.
            object_id: which object.

        Raises:
            ClickError: when the click cannot be used; the session is unchanged.
            CancelledError: when it was cancelled on the server.
            RemoteError: when the server is too busy or cannot be reached.
        """
        is_voxel = isinstance(point, VoxelPoint)
        place = point.to_ijk() if isinstance(point, VoxelPoint) else (point.x, point.y, point.z)
        wish = {
            "position": place,
            "space": "ijk" if is_voxel else "ras",
            "positive": positive,
            "object_id": object_id,
        }
        try:
            clicked = _parsed(ClickedOut, self._call("POST", self._path("clicks"), wish))
        except RemoteError as error:
            if error.status == 409:
                raise CancelledError(str(error)) from error
            raise
        self._state = clicked.state
        return clicked.answer

    def undo(self) -> bool:
        """Go back by one step; False where there is none."""
        return self._move("undo", is_possible=self.can_undo)

    def redo(self) -> bool:
        """Take back an undo; False where there is none."""
        return self._move("redo", is_possible=self.can_redo)

    def reset(self) -> None:
        """Forget all objects and clicks; undo brings them back."""
        self._change("POST", "reset", None)

    def add_object(self, name: str = "") -> int:
        """Begin another object; return its id.

        Raises:
            ClickError: when there are 255 already, or the name is too long.
        """
        added = _parsed(AddedOut, self._call("POST", self._path("objects"), {"name": name}))
        self._state = added.state
        return added.object_id

    def freeze_object(self, object_id: int, *, frozen: bool = True) -> None:
        """Make an object unchangeable, or changeable again.

        Raises:
            ClickError: when the object is not there.
        """
        self._change("PATCH", f"objects/{object_id}", {"frozen": frozen})

    def mask(self, object_id: int | None = None) -> Mask:
        """Return the mask of an object, or the label map of all: (D, H, W) uint8 on the scan's grid.

        Raises:
            ClickError: when the object is not there.
        """
        stored = self._image("mask.nii.gz", object_id)
        grid = stored.grid if self._volume is None else self._volume.grid
        return Mask(stored.array.astype(np.uint8), grid)

    def probability(self, object_id: int = 1) -> NDArray[np.float32]:
        """Return the probability of an object in every voxel: (D, H, W) float32 in [0, 1].

        Raises:
            ClickError: when the object is not there.
        """
        return self._image("probability.nii.gz", object_id).array.astype(np.float32)

    def resume(self, log: str) -> None:
        """Repeat the steps of an earlier session on the scan, and go on with its log.

        Args:
            log: one of `resumable`.

        Raises:
            ClickError: when it does not fit.
        """
        self._change("POST", "resume", {"log": log})

    def close(self) -> None:
        """End the session on the server, which keeps its log, and the connection."""
        try:
            self._end()
        except RemoteError:  # the server is gone, and the session with it or kept on its disk
            self._opened = None
        finally:
            self._connection.close()

    @property
    def objects(self) -> tuple[ObjectOut, ...]:
        """All objects, by id."""
        return tuple(self._known().objects)

    @property
    def can_undo(self) -> bool:
        """Tell whether there is a step to undo."""
        return self._known().can_undo

    @property
    def can_redo(self) -> bool:
        """Tell whether there is an undone step."""
        return self._known().can_redo

    @property
    def resumable(self) -> tuple[ResumableOut, ...]:
        """Earlier sessions on the same scan, the newest first."""
        return tuple(self._session().resumable)

    def _known(self) -> StateOut:
        if self._state is None:
            raise ConfigError("the session has no scan; call set_volume first")
        return self._state

    def _session(self) -> OpenedOut:
        if self._opened is None:
            raise ConfigError("the session has no scan; call set_volume first")
        return self._opened

    def _take(self, opened: OpenedOut) -> None:
        self._opened, self._state = opened, opened.state

    def _end(self) -> None:
        if self._opened is None:
            return
        ended, self._opened, self._state = self._opened, None, None
        try:
            self._call("DELETE", f"/api/sessions/{ended.session_id}")
        except RemoteError as error:
            if error.status != 404:  # it has ended already
                raise

    def _path(self, rest: str) -> str:
        return f"/api/sessions/{self._session().session_id}/{rest}"

    def _move(self, what: str, *, is_possible: bool) -> bool:
        self._change("POST", what, None)
        return is_possible

    def _change(self, method: str, rest: str, wish: object) -> None:
        self._state = _parsed(ChangedOut, self._call(method, self._path(rest), wish)).state

    def _image(self, name: str, object_id: int | None) -> Volume:
        query = "" if object_id is None else f"?object_id={object_id}"
        content = self._call("GET", self._path(name) + query).content
        with tempfile.TemporaryDirectory(prefix="clickvol-") as folder:
            place = Path(folder) / name
            place.write_bytes(content)
            return read_stored(place)

    def _upload(self, place: Path, fields: Mapping[str, str]) -> _Reply:
        boundary = secrets.token_hex(16)
        head = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
            for name, text in fields.items()
        )
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="scan"; filename="scan.nii.gz"\r\n'
            "Content-Type: application/gzip\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()

        def parts() -> Iterable[bytes]:
            yield head
            with place.open("rb") as file:
                while chunk := file.read(1 << 20):
                    yield chunk
            yield tail

        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + place.stat().st_size + len(tail)),
        }
        return self._send("POST", "/api/sessions", parts(), headers)

    def _call(self, method: str, path: str, wish: object = None) -> _Reply:
        body = None if wish is None else json.dumps(wish).encode()
        headers = {} if wish is None else {"Content-Type": "application/json"}
        return self._send(method, path, body, headers)

    def _send(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None, headers: dict[str, str]
    ) -> _Reply:
        try:
            self._connection.request(
                method, quote(self._base + path, safe="/?=&"), body, headers | self._headers
            )
            answer = self._connection.getresponse()
            reply = _Reply(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise RemoteError(
                0,
                f"the server at {self._connection.host} does not answer ({type(error).__name__}); see "
                "whether it runs, and try again",
            ) from error
        if not 200 <= reply.status < 300:
            raise _error_of(reply)
        return reply


def _parsed(model: type[ModelT], reply: _Reply) -> ModelT:
    try:
        return model.model_validate_json(reply.content)
    except ValidationError as error:
        raise RemoteError(
            reply.status,
            "the server answered something else than was asked; is it clickvol, of this version?",
        ) from error


def _error_of(reply: _Reply) -> ClickvolError:
    """Return the error that the same call would have raised here."""
    try:
        message = ErrorOut.model_validate_json(reply.content).error
    except ValidationError:
        message = f"the server answered {reply.status}; see whether it is clickvol"
    kinds: dict[int, type[ClickvolError]] = {422: ClickError, 507: OutputError}
    kind = kinds.get(reply.status)
    return RemoteError(reply.status, message) if kind is None else kind(message)
