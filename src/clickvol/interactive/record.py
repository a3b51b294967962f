"""What a session leaves on disk: an append-only file of JSON lines, enough to get every mask again.

The first line says which scan (by hash), model and versions. Then there is a line for every interaction, undo
and redo, written before it is computed, so that a killed process loses none; and one for what became of each
click. A record holds no path and nothing of the patient but where clicks are.
"""

import hashlib
import json
import os
import platform
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clickvol.errors import ClickError, ConfigError, OutputError
from clickvol.files.lock import lock_or_refuse
from clickvol.interactive.interactions import History, Interaction, Move, Shaping
from clickvol.interactive.scene import Scene
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.version import __version__
from clickvol.weights.load import LoadedModel

RECORD_SUFFIX = ".jsonl"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordHeader(_Line):
    """The first line: what must be the same for the interactions to give the same masks."""

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


class Outcome(_Line):
    """What became of the last click; one without it was being computed when the process ended, and counts."""

    kind: Literal["answered", "cancelled", "failed"]
    mask_sha256: str | None = None
    seconds: float | None = None


Line = Annotated[RecordHeader | Interaction | Move | Outcome, Field(discriminator="kind")]
_LINE: TypeAdapter[RecordHeader | Interaction | Move | Outcome] = TypeAdapter(Line)


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record as read.

    Attributes:
        steps: interactions and moves in order, each with the hash of its mask where the record has it; without
            clicks that came to nothing.
        last_time: of its last line, ISO 8601, UTC.
        num_bytes: length of the whole lines; what follows was cut off.
    """

    path: Path
    header: RecordHeader
    steps: tuple[tuple[Interaction | Move, str | None], ...]
    last_time: str
    num_bytes: int

    @property
    def history(self) -> History:
        """Where the session stood at its end."""
        return History().after(*(step for step, _ in self.steps))

    @property
    def unanswered(self) -> Shaping | None:
        """The last step, where it was being computed when the process ended."""
        step, mask_sha256 = self.steps[-1] if self.steps else (None, None)
        return step if isinstance(step, Shaping) and mask_sha256 is None else None

    @property
    def num_clicks(self) -> int:
        """Prompts that stand: not undone, and not before a reset."""
        return sum(len(known.prompts) for known in Scene.after(self.history.current).objects)

    def answers(self) -> Iterator[tuple[History, str | None]]:
        """Yield where the session stood after every interaction on an object, and the mask's hash if known."""
        history = History()
        for step, mask_sha256 in self.steps:
            history = history.after(step)
            if isinstance(step, Shaping):
                yield history, mask_sha256


class SessionRecord:
    """Appends to a record that no other process writes to; it is begun where it is missing.

    Of an earlier record `keep_bytes` stay; what follows is cut off.

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
    def begin(cls, folder: Path, header: RecordHeader) -> "SessionRecord":
        """Begin the record of a new session in a folder; OutputError when that fails, and nothing is left."""
        begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{header.scan_sha256[:16]}-{begun}-{secrets.token_hex(4)}{RECORD_SUFFIX}"
        record = cls(folder / name)
        try:
            record.append(header)
        except OutputError:
            record.close()
            record.path.unlink(missing_ok=True)
            raise
        return record

    def append(self, *lines: RecordHeader | Interaction | Move | Outcome) -> None:
        """Write lines, all or none; they are on disk when this returns. OutputError when the disk refuses."""
        before = os.fstat(self._descriptor).st_size
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        texts = [json.dumps({"time": time, **line.model_dump(exclude_none=True)}) + "\n" for line in lines]
        data = "".join(texts).encode()
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                raise OSError(28, "no space left on device")
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            raise OutputError(_cannot_write(self.path, error)) from error

    def close(self) -> None:
        """Let other processes have the record."""
        os.close(self._descriptor)


def header_of(
    volume: Volume, model: LoadedModel, *, modality: Modality | None, organ_mask: Mask | Volume | None
) -> RecordHeader:
    """Say of a session what decides its masks."""
    import torch

    return RecordHeader(
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


def check_same(ours: RecordHeader, record: ReadRecord) -> None:
    """Check that a record can be gone on with here; ConfigError when scan, model or modality are others."""
    theirs = record.header
    if ours.scan_sha256 != theirs.scan_sha256 or ours.organ_mask_sha256 != theirs.organ_mask_sha256:
        raise ConfigError(f"{record.path} is of another scan; open the scan that it was made with")
    if ours.model_sha256 != theirs.model_sha256:
        raise ConfigError(
            f"{record.path} is of the model {theirs.model_id} with other weights; load that model"
        )
    if ours.modality != theirs.modality:
        raise ConfigError(f"{record.path} treats the scan as {theirs.modality}; give that modality")


def read_record(path: Path) -> ReadRecord:
    """Read a record without a last line that was cut off; ConfigError when it is missing, none, or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the .jsonl file of a session") from error
    whole = data[: data.rfind(b"\n") + 1]
    header: RecordHeader | None = None
    steps: list[tuple[Interaction | Move, str | None]] = []
    time, is_open = "", False
    for number, text in enumerate(whole.splitlines(), start=1):
        line, time = _parsed(path, number, text)
        if isinstance(line, RecordHeader) != (number == 1):
            raise ConfigError(f"{path}: line {number} does not belong there; give the file of one session")
        if isinstance(line, RecordHeader):
            header = line
        elif not isinstance(line, Outcome):
            steps.append((line, None))
            is_open = isinstance(line, Shaping)
        elif not is_open:
            raise ConfigError(f"{path}: line {number} answers no click; the record was changed")
        else:
            click, is_open = steps.pop()[0], False
            if line.kind == "answered":
                steps.append((click, line.mask_sha256))
    if header is None:
        raise ConfigError(f"{path} is no record of a session; give the .jsonl file that a session wrote")
    record = ReadRecord(path, header, tuple(steps), time, len(whole))
    try:
        Scene.after(record.history.interactions)
    except ClickError as error:
        raise ConfigError(f"{path}: {error}; the record was changed") from error
    return record


def find_records(folder: Path, volume: Volume) -> list[ReadRecord]:
    """Return the records of a scan with clicks that stand, the newest first; damaged ones are left out."""
    scan_sha256 = scan_hash(volume)
    records = []
    for path in folder.rglob(f"{scan_sha256[:16]}-*{RECORD_SUFFIX}"):
        try:
            record = read_record(path)
        except ConfigError:
            continue
        if record.header.scan_sha256 == scan_sha256 and record.num_clicks:
            records.append(record)
    return sorted(records, key=lambda record: record.last_time, reverse=True)


def _parsed(path: Path, number: int, text: bytes) -> tuple[RecordHeader | Interaction | Move | Outcome, str]:
    try:
        fields = json.loads(text)
        time = str(fields.pop("time"))
        return _LINE.validate_python(fields), time
    except (ValueError, AttributeError, KeyError, TypeError, ValidationError, RecursionError) as error:
        raise ConfigError(
            f"{path}: line {number} is not one of a session; give the .jsonl file that a session wrote"
        ) from error


def _cannot_write(path: Path, error: OSError) -> str:
    return f"cannot write {path}: {error.strerror}; make room or choose another folder for the records"
