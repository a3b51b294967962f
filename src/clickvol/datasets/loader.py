"""Batches of training samples by the numbers of the samples, so that a run can begin anywhere."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.phantoms.phantom import make_phantom
from clickvol.preprocessing.channels import stand_in_organ

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


class Case(Protocol):
    """Something labelled that samples are drawn from."""

    @property
    def modality(self) -> str:
        """What kind of image it is."""


CaseT = TypeVar("CaseT", bound=Case)


class Sampler(Protocol[BatchT_co]):
    """Makes batches; a sample is the same whatever was made before it, in whatever batch."""

    def batch(self, numbers: Sequence[int]) -> BatchT_co:
        """Return the samples with these numbers."""


class CaseSampler(Generic[CaseT, BatchT]):
    """Draws each sample from a case with a generator that the sample's number seeds.

    Args:
        cases: labelled scans or pictures; drawn with equal probability within each modality, and the modalities
            with equal probability.
        phantoms: synthetic ones; may be empty.
        phantom_share: part of the samples from them.
        draw: makes a batch of one from a case; all that is random in it comes from the generator.
        join: makes a batch of several.
        seed: of the run.
        in_epochs: every scan once, shuffled, before any of them again, as the published methods train, instead
            of with replacement; modalities then come as often as they have scans.
    """

    def __init__(
        self,
        cases: Sequence[CaseT],
        phantoms: Sequence[CaseT],
        *,
        phantom_share: float,
        draw: Callable[[CaseT, np.random.Generator], BatchT],
        join: Callable[[list[BatchT]], BatchT],
        seed: int,
        in_epochs: bool = False,
    ) -> None:
        refuse_nothing(cases, phantoms)
        self._in_epochs = in_epochs
        self._cases = list(cases)
        modalities = sorted({case.modality for case in cases})
        self._pools = [[c for c in cases if c.modality == m] for m in modalities]
        self._phantoms = list(phantoms)
        share = phantom_share if phantoms else 0.0
        self._phantom_share = share if cases else 1.0
        self._draw, self._join, self._seed = draw, join, seed

    def batch(self, numbers: Sequence[int]) -> BatchT:
        """Return the samples with these numbers."""
        return self._join([self._sample(number) for number in numbers])

    def _sample(self, number: int) -> BatchT:
        rng = np.random.default_rng([self._seed, number])
        if rng.random() < self._phantom_share:
            pool = self._phantoms
        elif self._in_epochs:
            epoch, place = divmod(number, len(self._cases))
            order = np.random.default_rng([self._seed, epoch, 4]).permutation(len(self._cases))
            return self._draw(self._cases[order[place]], rng)
        else:
            pool = self._pools[rng.integers(len(self._pools))]
        return self._draw(pool[rng.integers(len(pool))], rng)


def refuse_nothing(cases: Sequence[object], phantoms: Sequence[object]) -> None:
    """Raise a ConfigError when there is nothing to train on."""
    if not cases and not phantoms:
        raise ConfigError("there is nothing to train on; give data.folders, or data.phantoms above 0")


class _Batches(Dataset[BatchT]):
    def __init__(self, sampler: Sampler[BatchT], numbers: list[range]) -> None:
        self._sampler, self._numbers = sampler, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> BatchT:
        return self._sampler.batch(self._numbers[index])


def batches(
    sampler: Sampler[BatchT], numbers: list[range], device: torch.device, workers: int
) -> Iterator[BatchT]:
    """Yield batches: on a CPU, and for samples that numpy draws, from processes that work ahead.

    Args:
        sampler: makes them.
        numbers: of the samples of each batch.
        device: where the sampler makes them.
        workers: number of processes.
    """
    if device.type != "cpu":
        yield from map(sampler.batch, numbers)
        return
    yield from DataLoader(
        _Batches(sampler, numbers),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        worker_init_fn=_leave_the_cores_to_the_trainer,
    )


def _leave_the_cores_to_the_trainer(_: int) -> None:
    torch.set_num_threads(1)
    os.nice(5)


def batch_numbers(
    first: int, num_rounds: int, batch_size: int, *, rank: int = 0, count: int = 1
) -> list[range]:
    """Return the sample numbers of each forward pass of one process.

    Args:
        first: number of the first sample.
        num_rounds: forward passes, over all steps.
        batch_size: samples per pass and process.
        rank: number of the process.
        count: processes; in each pass together they take count x batch_size samples that follow one another.
    """
    starts = [first + (number * count + rank) * batch_size for number in range(num_rounds)]
    return [range(start, start + batch_size) for start in starts]


def make_phantoms(count: int, seed: int, *, with_organ: bool = False) -> list[LabelledVolume]:
    """Make synthetic scans, every second one an MR, with voxels of 2 mm and tumours of all sizes.

    Phantoms have no organ; `with_organ` lays a stand-in around the tumour.
    """
    made = []
    for number in range(count):
        phantom = make_phantom(
            seed * 1000 + number,
            modality="MR" if number % 2 else "CT",
            shape_dhw=(72, 112, 112),
            spacing_dhw_mm=(3.0, 2.0, 2.0),
        )
        truth = phantom.truth.array
        organ = stand_in_organ(truth, phantom.volume.grid.spacing_dhw_mm) if with_organ else None
        made.append(LabelledVolume.of(phantom.volume, truth, organ))
    return made
