"""What training samples are drawn from, and what they are."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.case_index import IndexRow, Runs, measure
from clickvol.datasets.levels import levels_along_patient
from clickvol.io.volume import Volume
from clickvol.preprocessing.intensity import IntensityScale, intensity_scale, value_sample

MAX_CLICKS = 12
"""Slots for clicks in a sample; those that are not drawn with it are free for corrections."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVolume:
    """A scan with its mask, ready to draw samples from.

    Attributes:
        volume: the scan.
        label: (D, H, W) uint8, 0 or 1.
        scale: its intensity scale.
        outside_value: value of what lies outside the scan, in the scan's unit.
        index: voxels of object and scan that are known without reading it.
        object_runs_dhw: per axis, the slices that show the object.
        longest_side_mm: of the object's bounding box along the patient's axes.
        coarser: by their blocks, the levels of `levels.kept_blocks`, along the patient; unread.
        organ: (D, H, W) uint8, 0 or 1, for networks that see an organ mask; None where there is none.
    """

    volume: Volume
    label: NDArray[np.uint8]
    scale: IntensityScale
    outside_value: float
    index: IndexRow
    object_runs_dhw: tuple[Runs, Runs, Runs]
    longest_side_mm: float
    coarser: Mapping[tuple[int, int, int], NDArray[np.generic]]
    organ: NDArray[np.uint8] | None = None

    @property
    def modality(self) -> str:
        """What the scan is."""
        return self.volume.modality

    @classmethod
    def of(
        cls, volume: Volume, label: NDArray[np.uint8], organ: NDArray[np.uint8] | None = None
    ) -> "LabelledVolume":
        """Take a scan of known modality and a mask with at least one voxel."""
        scale = intensity_scale(volume.modality, value_sample(volume))
        facts, row = measure(volume, label, volume.source)
        runs, side = facts.runs_dhw, facts.longest_side_mm
        levels = levels_along_patient(volume.array, volume.grid)
        return cls(volume, label, scale, scale.outside, row, runs, side, levels, organ)


@dataclass(frozen=True, slots=True, eq=False)
class PatchPrompts:
    """The prompts of a batch.

    Attributes:
        points_dhw: (B, N, 3) float32, patch voxels.
        labels: (B, N) int64: 1 inside, 0 outside the object, padding where there is no click.
        prior: (B, 1, D, H, W) in [-1, 1], 2 p - 1 of an earlier mask; 0 where nothing is known.
        hints: (B, NUM_HINTS, D, H, W), see `device.prompts.HintChannel`; None where none are drawn.
    """

    points_dhw: Tensor
    labels: Tensor
    prior: Tensor
    hints: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PatchBatch:
    """A batch of samples.

    Attributes:
        patch: (B, C, D, H, W) float32: the scan, normalised, and for two channels the organ mask, 0 or 1 (the
            scan again where there is none).
        label: (B, 1, D, H, W) uint8.
        prompts: what the simulated user has said.
        noise_seed: (B,) int64, for what is drawn later.
    """

    patch: Tensor
    label: Tensor
    prompts: PatchPrompts
    noise_seed: Tensor

    def to(self, device: torch.device) -> "PatchBatch":
        """Return the batch on a device."""
        if self.patch.device == device:
            return self

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        prompts = {f.name: moved(getattr(self.prompts, f.name)) for f in fields(PatchPrompts)}
        rest = {name: moved(getattr(self, name)) for name in ("patch", "label", "noise_seed")}
        return PatchBatch(**rest, prompts=PatchPrompts(**prompts))  # type: ignore[arg-type]


def joined(batches: list[PatchBatch]) -> PatchBatch:
    """Join batches into a larger one."""
    if len(batches) == 1:
        return batches[0]

    def column(*path: str) -> Tensor | None:
        parts: list[Any] = list(batches)
        for name in path:
            parts = [getattr(part, name) for part in parts]
        return None if parts[0] is None else torch.cat(parts)

    prompts = {f.name: column("prompts", f.name) for f in fields(PatchPrompts)}
    rest = {name: column(name) for name in ("patch", "label", "noise_seed")}
    return PatchBatch(**rest, prompts=PatchPrompts(**prompts))  # type: ignore[arg-type]
