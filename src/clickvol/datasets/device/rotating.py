"""Training on more scans than memory holds: some at a time; which ones, the numbers of the samples say."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.samples import PatchBatch, joined

SAMPLES_PER_TURN = 2000
"""Samples that are drawn from the same scans before others are read."""


class RotatingSampler:
    """Makes batches from a part of the scans that changes every `SAMPLES_PER_TURN` samples.

    Args:
        groups: of each scan.
        num_voxels: of each scan.
        most_voxels: that are held at a time.
        seed: of the run.
        load: makes a sampler of the scans with these indices.
    """

    def __init__(
        self,
        groups: Sequence[str],
        num_voxels: Sequence[int],
        *,
        most_voxels: int,
        seed: int,
        load: Callable[[list[int]], PatchSampler],
    ) -> None:
        self._groups, self._num_voxels = np.array(groups), np.array(num_voxels)
        self._most_voxels, self._seed, self._load = most_voxels, seed, load
        self._loaded: dict[int, PatchSampler] = {}

    def batch(self, numbers: Sequence[int]) -> PatchBatch:
        """Return the samples with these numbers; reads scans where a turn begins."""
        turns = np.array(numbers) // SAMPLES_PER_TURN
        parts = [
            self._sampler(int(turn)).batch([n for n, t in zip(numbers, turns, strict=True) if t == turn])
            for turn in np.unique(turns)
        ]
        return joined(parts)

    def scans_of(self, turn: int) -> list[int]:
        """Return the indices of the scans of a turn: of every group one, then any while there is room."""
        order = np.random.default_rng([self._seed, turn, 4]).permutation(len(self._groups))
        _, first = np.unique(self._groups[order], return_index=True)
        order = np.concatenate([order[first], np.delete(order, first)])
        held: NDArray[np.int64] = np.cumsum(self._num_voxels[order])
        count = max(len(first), int(np.searchsorted(held, self._most_voxels, "right")))
        return sorted(order[:count].tolist())

    def _sampler(self, turn: int) -> PatchSampler:
        if turn not in self._loaded:
            # A batch may lie across two turns; earlier ones are not needed again.
            self._loaded = {n: sampler for n, sampler in self._loaded.items() if n == turn - 1}
            self._loaded[turn] = self._load(self.scans_of(turn))
        return self._loaded[turn]
