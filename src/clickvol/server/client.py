"""A session on another machine: the methods of `InteractiveSession`, answered by a server. Torch-free.

    from clickvol.server.client import RemoteSession

    with RemoteSession("http://127.0.0.1:8000") as session:
        session.set_volume(read_volume("scan.nii.gz"))
        session.click(VoxelPoint.from_ijk(120, 88, 41))
        write_mask(session.mask(), "mask.nii.gz")

No proxy and no redirect is followed, so that a scan goes to the server that was named and nowhere else.
"""

import ssl
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from clickvol.errors import CancelledError, ClickError, ClickvolError, ConfigError, OutputError, require
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.interactive.interactions import Shaping
from clickvol.io.formats import write_scan
from clickvol.io.nifti.files import read_stored
from clickvol.io.volume import Mask, Volume
from clickvol.prompts.spatial import GivenMask
from clickvol.server.wire import (
    AddedOut,
    AdviceOut,
    AnswerOut,
    ChangedOut,
    ClickedOut,
    ClickIn,
    ErrorOut,
    ObjectOut,
    OpenedOut,
    ProposalOut,
    ResumableOut,
    StateOut,
)

require("httpx", extra="serve", purpose="the client of a server")
import httpx  # noqa: E402

ModelT = TypeVar("ModelT", bound=BaseModel)

# A first click in a large scan on a slow machine takes minutes; a server that says nothing for longer is gone.
_TIMEOUT_SECONDS = 600.0

_ERRORS: dict[int, type[ClickvolError]] = {409: CancelledError, 422: ClickError, 507: OutputError}
"""What the same call would have raised here."""


class RemoteError(ClickvolError):
    """A server that cannot be reached (status 0), or that turned a request down (its HTTP status)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RemoteSession:
    """Clicks on one scan, answered by a server. Not for several threads at once.

    Args:
        address: of the server, "http://host:port" or "https://host:port".
        token: where the server asks for one.
        ca_file: PEM of whoever signed an https server's certificate, where no browser knows them.
        timeout_seconds: how long to wait for an answer.

    Raises:
        ConfigError: when the address is none, or the file cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        ca_file: Path | None = None,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{address!r} is no address of a server; give one such as http://127.0.0.1:8000")
        self._http = httpx.Client(
            base_url=address,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=timeout_seconds,
            trust_env=False,  # no proxy
            verify=_trusting(ca_file),
        )
        self._volume: Volume | None = None
        self._opened: OpenedOut | None = None
        self._state: StateOut | None = None

    def __enter__(self) -> "RemoteSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_volume(self, volume: Volume, *, modality: str | None = None) -> None:
        """Send a scan, as NIfTI without its name; a session on an earlier one ends.

        The modality, "CT", "MR", "PT" or "other", is given where the file does not say it or says it wrongly.
        ClickvolError when the server refuses the scan or cannot be reached.
        """
        self._end()
        given = modality or (None if volume.modality == "unknown" else volume.modality)
        with tempfile.TemporaryDirectory(prefix="clickvol-") as folder:
            place = Path(folder) / "scan.nii.gz"
            write_scan(volume, place)
            with place.open("rb") as file:
                scan = {"scan": (place.name, file, "application/gzip")}
                fields = {} if given is None else {"modality": given}
                self._open(files=scan, data=fields)
        self._volume = volume

    def open_path(self, path: str, *, series: str | None = None) -> None:
        """Open a scan under the server's root, by a path that is relative to it, or absolute and under it."""
        self._end()
        self._open(json={"path": path} | ({} if series is None else {"series": series}))
        self._volume = None

    def click(
        self, point: VoxelPoint | WorldPointRAS, *, positive: bool = True, object_id: int = 1
    ) -> AnswerOut:
        """Add a click to an object and answer all its clicks; arguments as of `InteractiveSession.click`.

        Raises:
            ClickError: when the click cannot be used; the session is unchanged.
            CancelledError: when it was cancelled on the server.
            RemoteError: when the server is too busy or cannot be reached.
        """
        if isinstance(point, VoxelPoint):
            given = ClickIn(position=point.to_ijk(), space="ijk", positive=positive, object_id=object_id)
        else:
            place = (point.x, point.y, point.z)
            given = ClickIn(position=place, space="ras", positive=positive, object_id=object_id)
        clicked = self._change(ClickedOut, "POST", "clicks", given.model_dump())
        return clicked.answer

    def add(self, interaction: Shaping) -> AnswerOut:
        """Add any interaction on an object, as `InteractiveSession.add` takes it; errors as of `click`."""
        return self._change(ClickedOut, "POST", "interactions", interaction.model_dump(mode="json")).answer

    def advice(self, object_id: int = 1) -> AdviceOut:
        """Return the Dice to expect of the last answer on an object, other masks, and where to click next."""
        return _parsed(AdviceOut, self._ask("GET", f"objects/{object_id}/advice"))

    def proposal(self) -> GivenMask | None:
        """Return what the server's automatic model proposes, for `add(interaction_of(...))`; None for nothing.

        Raises:
            RemoteError: 404 when the server has no such model.
        """
        voxels = _parsed(ProposalOut, self._ask("GET", "proposal")).voxels
        return None if voxels is None else GivenMask(voxels.mask)

    def undo(self) -> bool:
        """Go back by one step; False where there is none."""
        is_possible = self.can_undo
        self._change(ChangedOut, "POST", "undo")
        return is_possible

    def redo(self) -> bool:
        """Take back an undo; False where there is none."""
        is_possible = self.can_redo
        self._change(ChangedOut, "POST", "redo")
        return is_possible

    def reset(self) -> None:
        """Forget all objects and clicks; undo brings them back."""
        self._change(ChangedOut, "POST", "reset")

    def add_object(self, name: str = "") -> int:
        """Begin another object; return its id. ClickError when there are 255 already, or for a long name."""
        return self._change(AddedOut, "POST", "objects", {"name": name}).object_id

    def freeze_object(self, object_id: int, *, frozen: bool = True) -> None:
        """Make an object unchangeable, or changeable again; ClickError when it is not there."""
        self._change(ChangedOut, "PATCH", f"objects/{object_id}", {"frozen": frozen})

    def describe_object(
        self, object_id: int, *, name: str | None = None, term: str | None = None, colour: str | None = None
    ) -> None:
        """Name an object; what is None stays, and "" is none. ClickError for an unknown object or term."""
        given = {"name": name, "term": term, "colour": colour}
        self._change(ChangedOut, "PATCH", f"objects/{object_id}", given)

    def delete_object(self, object_id: int) -> None:
        """Take an object away; the others keep their ids. ClickError when it is not there, or frozen."""
        self._change(ChangedOut, "DELETE", f"objects/{object_id}")

    def mask(self, object_id: int | None = None) -> Mask:
        """Return the mask of an object, or the label map of all: (D, H, W) uint8 on the scan's grid."""
        stored = self._image("mask.nii.gz", object_id)
        grid = stored.grid if self._volume is None else self._volume.grid
        return Mask(stored.array.astype(np.uint8), grid)

    def probability(self, object_id: int = 1) -> NDArray[np.float32]:
        """Return the probability of an object in every voxel: (D, H, W) float32 in [0, 1]."""
        return self._image("probability.nii.gz", object_id).array.astype(np.float32)

    def resume(self, log: str) -> None:
        """Go on with a copy of an earlier session on the scan, one of `resumable`; ClickError if none fits."""
        self._change(ChangedOut, "POST", "resume", {"log": log})

    def close(self) -> None:
        """End the session on the server, which keeps its record, and the connection."""
        try:
            self._end()
        except RemoteError:  # the server is gone, and the session with it or kept on its disk
            self._opened = None
        finally:
            self._http.close()

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
        return self._state or self._session().state

    def _session(self) -> OpenedOut:
        if self._opened is None:
            raise ConfigError("the session has no scan; call set_volume first")
        return self._opened

    def _open(self, **words: Any) -> None:  # noqa: ANN401  # those of httpx
        self._opened = _parsed(OpenedOut, self._send("POST", "/api/sessions", **words))
        self._state = self._opened.state

    def _end(self) -> None:
        if self._opened is None:
            return
        ended, self._opened, self._state = self._opened, None, None
        try:
            self._send("DELETE", f"/api/sessions/{ended.session_id}")
        except RemoteError as error:
            if error.status != 404:  # it has ended already
                raise

    def _ask(self, method: str, rest: str, **words: Any) -> httpx.Response:  # noqa: ANN401  # those of httpx
        return self._send(method, f"/api/sessions/{self._session().session_id}/{rest}", **words)

    def _change(self, model: type[ModelT], method: str, rest: str, given: object = None) -> ModelT:
        changed = _parsed(model, self._ask(method, rest, json=given))
        if isinstance(changed, ChangedOut):
            self._state = changed.state
        return changed

    def _image(self, name: str, object_id: int | None) -> Volume:
        query = {} if object_id is None else {"object_id": object_id}
        content = self._ask("GET", name, params=query).content
        with tempfile.TemporaryDirectory(prefix="clickvol-") as folder:
            place = Path(folder) / name
            place.write_bytes(content)
            return read_stored(place)

    def _send(self, method: str, path: str, **words: Any) -> httpx.Response:  # noqa: ANN401  # those of httpx
        try:
            reply = self._http.request(method, path, **words)
        except httpx.HTTPError as error:
            raise RemoteError(
                0,
                f"the server at {self._http.base_url.host} does not answer ({type(error).__name__}); see "
                "whether it runs, and try again",
            ) from error
        if reply.is_success:
            return reply
        try:
            message = ErrorOut.model_validate_json(reply.content).error
        except ValidationError:
            message = f"the server answered {reply.status_code}; see whether it is clickvol"
        kind = _ERRORS.get(reply.status_code)
        raise RemoteError(reply.status_code, message) if kind is None else kind(message)


def _trusting(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"cannot read certificates from {ca_file} ({error}); give a PEM file") from error


def _parsed(model: type[ModelT], reply: httpx.Response) -> ModelT:
    try:
        return model.model_validate_json(reply.content)
    except ValidationError as error:
        raise RemoteError(
            reply.status_code,
            "the server answered something else than was asked; is it clickvol, of this version?",
        ) from error
