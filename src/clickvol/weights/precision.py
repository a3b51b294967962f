"""Which number format the matrix work is done in: on a CPU the one that is faster there, measured once."""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from clickvol.errors import ClickvolError
from clickvol.files.atomic import make_folder, write_text
from clickvol.weights.cache import cached_model_folder

_REPEATS = 6

# Half the digits have to pay: bfloat16 is taken where it is that much faster, and noise does not decide.
_LEAST_GAIN = 1.25


# Below 20480 values without the last axis torch takes another convolution, which large images never see.
_IMAGE_SHAPE = (1, 64, 16, 21, 16)


@dataclass(frozen=True, slots=True)
class CpuSpeeds:
    """Speeds of one core under autocast, in 10^9 multiplications and additions a second."""

    linear_float32: float
    linear_bfloat16: float
    convolution_float32: float
    convolution_bfloat16: float

    @property
    def faster(self) -> torch.dtype:
        """The format in which a linear layer and a convolution together are clearly faster; float32 if none."""
        gain = (1 / self.linear_float32 + 1 / self.convolution_float32) / (
            1 / self.linear_bfloat16 + 1 / self.convolution_bfloat16
        )
        return torch.bfloat16 if gain >= _LEAST_GAIN else torch.float32


def choose_precision(device: torch.device) -> torch.dtype:
    """Return the number format of the matrix work on a device: the same in every process of a machine."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return cpu_speeds().faster if device.type == "cpu" else torch.float32


@cache
def cpu_speeds() -> CpuSpeeds:
    """Return the speeds of this machine, as measured the first time."""
    kernels = torch.backends.cpu.get_cpu_capability()
    return CpuSpeeds(**measured_once("cpu-speed", kernels, lambda: asdict(_measured())))


def measured_once(name: str, what: str, measure: Callable[[], Any]) -> Any:  # noqa: ANN401  # of `measure`
    """Return what was measured on this machine the first time: what a result depends on must not change.

    Another version of torch measures anew, and so does a machine whose cache cannot be written.
    """
    key = f"{platform.node()} {platform.machine()} {torch.__version__} {what}"
    try:
        folder = cached_model_folder(name)
        path = folder / "measured.json"
        known = _read(path)
        if key in known:
            return known[key]
        value = measure()
        # Another process may have measured at the same time: the first one counts.
        known = {key: value} | _read(path)
        make_folder(folder)
        write_text(path, json.dumps(known, indent=1))
        return known[key]
    except ClickvolError:
        return measure()


def _read(path: Any) -> dict[str, Any]:  # noqa: ANN401
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _measured() -> CpuSpeeds:
    """Measure, in some 50 ms; formats take turns, so that other work slows them alike."""
    generator = torch.Generator().manual_seed(0)
    tokens, matrix = (torch.randn(*s, generator=generator) for s in ((64, 512), (768, 512)))
    image, kernel = (torch.randn(*s, generator=generator) for s in (_IMAGE_SHAPE, (16, 64, 3, 3, 3)))
    work: dict[str, tuple[float, Callable[[], object]]] = {
        "linear": (64 * 512 * 768 * 2e-9, lambda: F.linear(tokens, matrix)),
        "convolution": (prod(_IMAGE_SHAPE) * 27 * 16 * 2e-9, lambda: F.conv3d(image, kernel, padding=1)),
    }
    seconds: dict[str, float] = {}
    # One thread: several wait for each other where the machine is busy.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _time(work, seconds)
    finally:
        torch.set_num_threads(num_threads)
    return CpuSpeeds(**{key: round(work[key.split("_")[0]][0] / spent, 1) for key, spent in seconds.items()})


def _time(work: dict[str, tuple[float, Callable[[], object]]], seconds: dict[str, float]) -> None:
    """Put the shortest of a few times of every work and format into `seconds`."""
    with torch.inference_mode():
        for _ in range(_REPEATS):
            for name, (_, run) in work.items():
                for kind in ("float32", "bfloat16"):
                    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
                        started = time.perf_counter()
                        run()
                        spent = time.perf_counter() - started
                    key = f"{name}_{kind}"
                    seconds[key] = min(spent, seconds.get(key, spent))
