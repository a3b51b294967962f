"""Reading a checkpoint of torch.save without ever running what is in it."""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clickvol.errors import DamagedWeightsError, ModelNotFoundError

_ZIP_START = b"PK\x03\x04"

# Numbers that the official trainers store come from a mean over losses: floats; the others cost nothing.
_NUMBER_TYPES = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

_Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]


def read_official_file(path: Path) -> dict[str, Any]:
    """Read a `.pth` or `.pth.tar` file: tensors, numbers, texts, and lists and dictionaries of them.

    Tensors are mapped into memory, not read, where the file allows it (a zip archive, as torch.save has written
    since version 1.6); so what is never looked at costs nothing. DamagedWeightsError when it is cut off, or
    holds anything that could run code.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}; give the checkpoint that you have")
    try:
        with path.open("rb") as file:
            is_archive = file.read(len(_ZIP_START)) == _ZIP_START
        if is_archive and not zipfile.is_zipfile(path):
            raise DamagedWeightsError(f"{path} is cut off: the end of the archive is missing; get it again")
        with torch.serialization.safe_globals(_numpy_numbers()):
            content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        raise DamagedWeightsError(_refusal(path, error)) from error
    except OSError as error:
        raise ModelNotFoundError(
            f"cannot read {path}: {error.strerror}; make it readable or copy it elsewhere"
        ) from error
    except (DamagedWeightsError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes torch's reader raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedWeightsError(
            f"{path} is damaged or no file of torch.save ({reason}); get it again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DamagedWeightsError(
            f"{path} holds a {type(content).__name__}, but a dictionary of named weights is expected"
        )
    return content


def _numpy_numbers() -> list[_Allowed]:
    """Return what a stored numpy scalar is made with, under the module names of numpy 1 and 2."""
    make_scalar: Any = np.float64(0).__reduce__()[0]
    kinds: list[_Allowed] = [type(np.dtype(kind)) for kind in _NUMBER_TYPES]
    return [
        (make_scalar, "numpy.core.multiarray.scalar"),
        (make_scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *kinds,
    ]


def _refusal(path: Path, error: Exception) -> str:
    """Return a line about a pickle that torch's restricted reader would not take."""
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:
        return (
            f"{path} holds {forbidden[1]}, which could run code; nothing was run; only tensors, numbers and "
            "texts are read from a checkpoint"
        )
    return f"{path} is damaged or no file of torch.save; get it again"
