"""Which device and which number format: chosen here and nowhere else."""

import torch

from clickvol.errors import DeviceError
from clickvol.parallel.rows import worker_number


def choose_device(name: str) -> torch.device:
    """Return the device for a name.

    Args:
        name: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        DeviceError: for an unknown name, or a device that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"there is no device {name!r}; choose auto, cpu, cuda or mps") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise DeviceError(f"the device {name!r} is not available on this machine; use --device auto or cpu")
    return device


def device_of_worker(name: str) -> str:
    """Return the name of the device for this process: the workers of this machine share its CUDA devices.

    Args:
        name: as for `choose_device`; "auto" and "cuda" are dealt out, any other is the same for all.
    """
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{worker_number() % torch.cuda.device_count()}"


def choose_precision(device: torch.device) -> torch.dtype:
    """Return the number format of the matrix work: bfloat16 where the hardware multiplies it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # torch emulates bfloat16 on every CPU with AVX-512; it only pays with the instructions for it.
    supports_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    supports_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(supports_bf16() or supports_amx())
