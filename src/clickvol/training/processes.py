"""The processes of one run: one on a laptop, several under `torchrun` or `accelerate launch`.

Launchers tell each process its number by environment variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT), which `torch.distributed` reads by itself. Nothing here starts a process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from clickvol.errors import ConfigError
from clickvol.weights.device import choose_device


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: its number, 0 first; that one alone writes.
        count: how many there are.
        device: where it computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Tell whether this is the process that writes."""
        return self.rank == 0

    def mean(self, values: list[float]) -> list[float]:
        """Return the means over the processes; every process must ask."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=_talking_device(self.device))
        dist.all_reduce(tensor)
        return [float(v) for v in tensor / self.count]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the other processes of the run, where a launcher started several.

    Args:
        device: as in `RunSection`; with several processes "auto" and "cuda" take the CUDA device of the
            process's number on its machine.

    Raises:
        ConfigError: when there are more processes on this machine than CUDA devices.
        DeviceError: when the device is not there.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, choose_device(device))
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    uses_cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if uses_cuda and local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no CUDA device, there are "
            f"{torch.cuda.device_count()}; start as many processes as devices, or set run.device=cpu"
        )
    chosen = choose_device(f"cuda:{local_rank}" if uses_cuda else device)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


def _talking_device(device: torch.device) -> torch.device:
    """Return where tensors must lie to be exchanged: NCCL knows CUDA only, Gloo the CPU."""
    return device if device.type == "cuda" else torch.device("cpu")
