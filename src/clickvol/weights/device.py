"""Which device: chosen here and nowhere else."""

import torch

from clickvol.errors import DeviceError
from clickvol.parallel.rows import worker_number


def choose_device(name: str) -> torch.device:
    """Return "auto" (CUDA, MPS, CPU), "cpu", "cuda", "cuda:N" or "mps"; DeviceError when it is not there."""
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
    """Return the name of this process's device: workers share the CUDA devices that "auto" and "cuda" mean."""
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{worker_number() % torch.cuda.device_count()}"
