"""What a process of a batch does: one row after another, with a model that is loaded once.

Every row ends in a record, whatever happens in it. A process that lost its parent ends by itself.
"""

import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clickvol.batch.manifest import BatchRow
from clickvol.batch.records import RowRecord, write_record
from clickvol.errors import ClickvolError, OutputError
from clickvol.predict.segmentation_request import SegmentationResult, run_request
from clickvol.version import __version__
from clickvol.weights.card import DEFAULT_MODEL_ID

if TYPE_CHECKING:
    from clickvol.weights.load import LoadedModel

# Rows may alternate between two models; more would fill the memory of a device.
_KEPT_MODELS = 2

# How long a process whose parent is gone may take to remove what it had half written.
_FAREWELL_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlace:
    """Where a process works.

    Attributes:
        folder: of the records.
        slot: number of the process on its machine, from 0; several CUDA devices are dealt out by it.
    """

    folder: Path
    slot: int


def prepare_process(num_threads: int | None) -> None:
    """Make a process one that ends when it is told to, and when its parent has ended.

    Args:
        num_threads: for the network; None leaves it to the environment.
    """
    # Ctrl-C reaches every process of a terminal; the parent decides, and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if num_threads is not None:
        import torch

        torch.set_num_threads(num_threads)


def _end(_signal: int, _frame: object) -> None:
    sys.exit(128 + signal.SIGTERM)  # an exception, so that temporary files are removed on the way


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    multiprocessing.connection.wait([parent.sentinel])
    # To the process, not to this thread: only its main thread can leave what it is doing.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_FAREWELL_SECONDS)
    os._exit(128 + signal.SIGTERM)


def run_row(row: BatchRow, place: WorkerPlace) -> RowRecord:
    """Segment a row, and write its mask and then its record.

    Returns:
        The record; failed where there is no mask, or where the record could not be written.
    """
    record = _answer(row, place)
    try:
        write_record(place.folder, row, record)
    except OutputError as error:
        return failed_record(row, str(error))
    return record


def failed_record(row: BatchRow, error: str) -> RowRecord:
    """Return the record of a row without a mask."""
    return RowRecord(
        row=row.number,
        key=row.key,
        status="failed",
        scan=row.scan,
        output=row.output,
        error=" ".join(error.split()),
        clickvol_version=__version__,
    )


def _answer(row: BatchRow, place: WorkerPlace) -> RowRecord:
    if row.job is None:
        return failed_record(row, row.problem or "the row cannot be used")
    job = replace(row.job, device=device_of_slot(row.job.device, place.slot))
    try:
        if job.mask.is_relative_to(place.folder.absolute()):
            job.mask.parent.mkdir(parents=True, exist_ok=True)
        load = functools.partial(_shared_model, job.model or DEFAULT_MODEL_ID, job.device)
        return _done_record(row, run_request(job, load=load))
    except ClickvolError as error:
        return failed_record(row, str(error))
    except MemoryError:
        return failed_record(row, "there is not enough memory for this scan; use fewer workers")
    except Exception as error:  # whatever is wrong with one row must not stop the others
        return failed_record(row, f"unexpected {type(error).__name__}: {error}")


def _done_record(row: BatchRow, result: SegmentationResult) -> RowRecord:
    found = result.segmentation
    return RowRecord(
        row=row.number,
        key=row.key,
        status="done",
        scan=row.scan,
        output=row.output,
        model=found.model_id,
        modality=found.modality,
        voxels=found.mask.num_voxels,
        volume_ml=round(found.mask.volume_ml, 4),
        seconds=round(result.seconds["total"], 3),
        warnings=result.warnings,
        clickvol_version=__version__,
    )


def device_of_slot(device: str, slot: int) -> str:
    """Return the device for a process: CUDA devices are dealt out in turn, and any other is shared.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        slot: number of the process on its machine, from 0.
    """
    if device not in ("auto", "cuda"):
        return device
    import torch

    if not torch.cuda.is_available():
        return device
    return f"cuda:{slot % torch.cuda.device_count()}"


@functools.lru_cache(maxsize=_KEPT_MODELS)
def _shared_model(model: str, device: str) -> "LoadedModel":
    from clickvol.weights.load import load_model

    return load_model(model, device=device)
