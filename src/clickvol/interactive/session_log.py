"""What a session leaves on disk: an append-only file of JSON lines, enough to get every mask again.

The first line says which scan (by hash), model and versions. Then there is a line for every step, written
before its answer is computed, so that a killed process loses no click; and one for what became of each click.
A log holds no path and nothing of the patient but where clicks are.
"""

import hashlib
import json
import os
import platform
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clickvol.errors import ConfigError, OutputError
from clickvol.files.file_lock import lock_or_refuse
from clickvol.geometry.box import bounding_box
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.prompts.click import Click
from clickvol.version import __version__
from clickvol.weights.load import LoadedModel

Triple = tuple[float, float, float]

LOG_SUFFIX = ".jsonl"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    time: str


class LogHeader(_Line):
    """The first line: what must be the same for a log to give the same masks."""

    kind: Literal["clickvol-session"] = "clickvol-session"
    format: Literal[1] = 1
    scan_sha256: str
    organ_mask_sha256: str | None = None
    modality: Modality | None = None
    shape_dhw: tuple[int, int, int]
    model_id: str
    model_sha256: str
    device: str
    precision: str
    num_threads: int
    versions: dict[str, str]


class ClickStep(_Line):
    """A click: voxels of the file as stored, or RAS millimetres."""

    kind: Literal["click"] = "click"
    object_id: int
    space: Literal["ijk", "ras"]
    position: Triple
    positive: bool


class PlainStep(_Line):
    """A step that takes no words."""

    kind: Literal["undo", "redo", "reset"]


class AddStep(_Line):
    """Another object."""

    kind: Literal["add_object"] = "add_object"
    name: str


class FreezeStep(_Line):
    """An object made unchangeable, or changeable again."""

    kind: Literal["freeze_object"] = "freeze_object"
    object_id: int
    frozen: bool


class Outcome(_Line):
    """What became of the last click; a click without one was being computed when the process ended."""

    kind: Literal["answered", "cancelled", "failed"]
    mask_sha256: str | None = None
    seconds: float | None = None


Step = ClickStep | PlainStep | AddStep | FreezeStep
_LINE: TypeAdapter[LogHeader | Step | Outcome] = TypeAdapter(
    Annotated[
        LogHeader | ClickStep | PlainStep | AddStep | FreezeStep | Outcome,
        Field(discriminator="kind"),
    ]
)


@dataclass(frozen=True, slots=True)
class LoggedStep:
    """A step, and what became of it.

    Attributes:
        step: what was asked.
        outcome: of a click; None for other steps and for a click that was cut off.
    """

    step: Step
    outcome: Outcome | None

    @property
    def counts(self) -> bool:
        """False for a click that was cancelled or failed, and so changed nothing."""
        return self.outcome is None or self.outcome.kind == "answered"


@dataclass(frozen=True, slots=True)
class ReadLog:
    """A log as read.

    Attributes:
        header: its first line.
        steps: in order.
        num_bytes: length of the whole lines; what follows was cut off.
    """

    header: LogHeader
    steps: tuple[LoggedStep, ...]
    num_bytes: int


class SessionLog:
    """Appends to a log that no other process writes to.

    Args:
        path: of the log; begun where it is missing.
        keep_bytes: length of an earlier log that is gone on with; what follows is cut off.

    Raises:
        ConfigError: when another process writes to it.
        OutputError: when the file system refuses.
    """

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise OutputError(_cannot_write(path, error)) from error
        self._descriptor = descriptor
        try:
            lock_or_refuse(descriptor, f"{path} is in use by another process; close that one first")
            os.ftruncate(descriptor, keep_bytes)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def begin(cls, folder: Path, header: LogHeader) -> "SessionLog":
        """Begin the log of a new session in a folder.

        Raises:
            OutputError: when the file system refuses; nothing is left then.
        """
        begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{header.scan_sha256[:16]}-{begun}-{secrets.token_hex(4)}{LOG_SUFFIX}"
        log = cls(folder / name)
        try:
            log.append(header)
        except OutputError:
            log.close()
            log.path.unlink(missing_ok=True)
            raise
        return log

    def append(self, line: LogHeader | Step | Outcome) -> None:
        """Write a line; it is on disk when this returns.

        Raises:
            OutputError: when the file system refuses; the log is as before then.
        """
        before = os.fstat(self._descriptor).st_size
        data = (line.model_dump_json(exclude_none=True) + "\n").encode()
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                raise OSError(28, "no space left on device")
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            raise OutputError(_cannot_write(self.path, error)) from error

    def close(self) -> None:
        """Let other processes have the log."""
        os.close(self._descriptor)


def now() -> str:
    """Return the time as logs have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def header_of(
    volume: Volume,
    model: LoadedModel,
    *,
    modality: Modality | None,
    organ_mask: Mask | Volume | None,
) -> LogHeader:
    """Say of a session what decides its masks."""
    import torch

    return LogHeader(
        time=now(),
        scan_sha256=scan_hash(volume),
        organ_mask_sha256=None if organ_mask is None else scan_hash(organ_mask),
        modality=modality or volume.modality,
        shape_dhw=volume.grid.shape_dhw,
        model_id=model.card.id,
        model_sha256=model.card.sha256,
        device=str(model.device),
        precision=str(model.precision).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
        versions={
            "clickvol": __version__,
            "torch": version("torch"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
    )


def scan_hash(volume: Volume | Mask) -> str:
    """Return a hash of the values and the place of a scan: the same for the same scan in any file format."""
    digest = hashlib.sha256()
    array = np.ascontiguousarray(volume.array)
    affine = np.ascontiguousarray(volume.grid.affine_ras_mm, dtype=np.float64)
    digest.update(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(affine.tobytes())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def mask_hash(mask: Mask) -> str:
    """Return a hash of where the object's voxels are: of its bounding box and the bits in it."""
    box = bounding_box(mask.array)
    if box is None:
        return hashlib.sha256(b"empty").hexdigest()
    digest = hashlib.sha256(f"{box.start_dhw} {box.stop_dhw} ".encode())
    digest.update(np.packbits(mask.array[box.slices] != 0).tobytes())
    return digest.hexdigest()


def step_of_click(click: Click, object_id: int) -> ClickStep:
    """Write a click down as it was given."""
    place = click.position
    is_voxel = isinstance(place, VoxelPoint)
    position = place.to_ijk() if isinstance(place, VoxelPoint) else (place.x, place.y, place.z)
    return ClickStep(
        time=now(),
        object_id=object_id,
        space="ijk" if is_voxel else "ras",
        position=position,
        positive=click.foreground,
    )


def outcome_of(mask: Mask, seconds: dict[str, float]) -> Outcome:
    """Write down that a click was answered with a mask."""
    total = round(sum(seconds.values()), 4)
    return Outcome(time=now(), kind="answered", mask_sha256=mask_hash(mask), seconds=total)


def check_same(ours: LogHeader, theirs: LogHeader, log: Path) -> None:
    """Check that a log can be repeated here.

    Raises:
        ConfigError: when it is of another scan, model or modality.
    """
    if ours.scan_sha256 != theirs.scan_sha256 or ours.organ_mask_sha256 != theirs.organ_mask_sha256:
        raise ConfigError(f"{log} is of another scan; open the scan that it was made with")
    if ours.model_sha256 != theirs.model_sha256:
        raise ConfigError(f"{log} is of the model {theirs.model_id} with other weights; load that model")
    if ours.modality != theirs.modality:
        raise ConfigError(f"{log} treats the scan as {theirs.modality}; give that modality")


def read_log(path: Path) -> ReadLog:
    """Read a log; a last line that was cut off is left out.

    Raises:
        ConfigError: when it is missing, no log of a session, or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the .jsonl file of a session") from error
    whole = data[: data.rfind(b"\n") + 1]
    lines = [_parsed(path, n, line) for n, line in enumerate(whole.splitlines(), start=1)]
    if not lines or not isinstance(lines[0], LogHeader):
        raise ConfigError(f"{path} is no log of a session; give the .jsonl file that a session wrote")
    steps: list[LoggedStep] = []
    for number, line in enumerate(lines[1:], start=2):
        if isinstance(line, LogHeader):
            raise ConfigError(f"{path}: line {number} begins another session; give the log of one")
        if not isinstance(line, Outcome):
            steps.append(LoggedStep(line, None))
        elif steps and isinstance(steps[-1].step, ClickStep) and steps[-1].outcome is None:
            steps[-1] = LoggedStep(steps[-1].step, line)
        else:
            raise ConfigError(f"{path}: line {number} answers no click; the log was changed")
    return ReadLog(lines[0], tuple(steps), len(whole))


def _parsed(path: Path, number: int, line: bytes) -> LogHeader | Step | Outcome:
    try:
        known: Any = json.loads(line)
        return _LINE.validate_python(known, strict=False)
    except (ValueError, ValidationError, RecursionError) as error:
        raise ConfigError(
            f"{path}: line {number} is not one of a session; give the .jsonl file that a session wrote"
        ) from error


def _cannot_write(path: Path, error: OSError) -> str:
    return f"cannot write {path}: {error.strerror}; make room or choose another folder for the logs"
