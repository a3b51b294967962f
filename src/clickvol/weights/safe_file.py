"""Writing and reading weights without ever running what is in the file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clickvol.errors import DamagedWeightsError, ModelNotFoundError
from clickvol.files.atomic import atomic_path
from clickvol.weights.cache import sha256_of_file

# First bytes of a zip archive (torch.save) and of a bare pickle: formats that can carry code.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def write_weights(state: Mapping[str, Tensor], path: Path, *, dtype: torch.dtype) -> tuple[str, int]:
    """Write a state dict as safetensors in the given number format; return (sha256, bytes)."""
    tensors = {name: _in_format(tensor.detach(), dtype).contiguous() for name, tensor in state.items()}
    with atomic_path(path, path.suffix) as temporary:
        temporary.touch()
        usual_mode = temporary.stat().st_mode
        save_file(tensors, temporary)
        # The library makes its file readable by its owner only; a model is for whoever may read the folder.
        temporary.chmod(usual_mode)
        return sha256_of_file(temporary), temporary.stat().st_size


def _in_format(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a number format; whole numbers (counters of a BatchNorm) stay what they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def read_weights(path: Path, *, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file as float32 after checking its hash; DamagedWeightsError for any other."""
    if not path.is_file():
        raise ModelNotFoundError(
            f"the weights {path} are missing, but their card is there; copy them beside it"
        )
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_PICKLE_STARTS):
        raise DamagedWeightsError(
            f"{path} is a pickle, which can run code when it is read; only safetensors are loaded; "
            "convert it where you trust it"
        )
    actual = sha256_of_file(path)
    if actual != sha256:
        raise DamagedWeightsError(
            f"the weights {path} are damaged: sha256 is {actual[:12]}..., the card says "
            f"{sha256[:12]}...; take the file again from where it came"
        )
    try:
        # The file is mapped, not copied, so that a large model does not lie in memory twice.
        return {name: _in_format(tensor, torch.float32) for name, tensor in load_file(path).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedWeightsError(
            f"{path} is not a safetensors file ({error}); only safetensors are loaded"
        ) from error
