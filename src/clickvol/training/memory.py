"""The memory of a training step with SAM's blocks, and what is free: whether blocks are computed again."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path

import torch

from clickvol.image_encoders.lifted_vit3d import LiftedVitConfig
from clickvol.methods.lifted_segmenter import LiftedSegmenterConfig

_GIB = 2**30

# Options of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4

# One step of ProMISe-3D at ViT-B on a patch of 128^3 in float32 took 31.8 GiB, and 6.7 with its blocks computed
# again (measured); the difference over 12 blocks x 32^3 tokens x 768 values is what a block keeps per value.
_BYTES_PER_VALUE = (31.8 - 6.7) * _GIB / (12 * 32**3 * 768)
_BYTES_PER_VOXEL = 6.7 * _GIB / 128**3


def bytes_of_step(network: LiftedSegmenterConfig, batch_size: int) -> float:
    """Return the memory of a step that keeps everything, estimated; 0 for an encoder without SAM's blocks."""
    encoder = network.encoder
    if not isinstance(encoder, LiftedVitConfig):
        return 0.0
    tokens = prod(n // encoder.token_stride for n in network.patch_shape_dhw)
    blocks = _BYTES_PER_VALUE * encoder.depth * tokens * encoder.width
    return batch_size * (blocks + _BYTES_PER_VOXEL * prod(network.patch_shape_dhw))


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device; on a CPU within the limit of the container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    known = [_available(), _left_in_container()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((n for n in known if n is not None), default=physical)


@contextlib.contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """While on a CPU, keep memory that the main thread frees for the next step; without glibc nothing changes.

    glibc hands every block above 32 MiB back to the system, so each step gets its maps page by page and zeroed:
    a fifth to a quarter of a step with LiteMedSAM's encoder (docs/explanation/speed.md).
    """
    c_library = ctypes.CDLL(None) if sys.platform == "linux" else None
    set_option = getattr(c_library, "mallopt", None)  # another C library has none
    if c_library is None or set_option is None or device.type != "cpu":
        yield
        return
    set_option(_MMAP_MAX, 0)
    set_option(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        # What glibc arrives at by itself in a process that has freed large blocks; 65,536 is its default.
        set_option(_MMAP_MAX, 65536)
        set_option(_MMAP_THRESHOLD, 32 * 2**20)
        set_option(_TRIM_THRESHOLD, 64 * 2**20)
        c_library.malloc_trim(0)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def _left_in_container() -> int | None:
    """Return what a control group leaves; None without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None
