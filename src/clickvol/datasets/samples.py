"""Training samples: a field of view around a simulated click, augmented, with its prompts."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.augment import (
    bend_at,
    displacement,
    shape_of,
    smooth_noise,
    spoil_intensity,
    turned,
)
from clickvol.datasets.case_index import Runs, measure
from clickvol.datasets.sampling import SamplingSection
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import PatchPoint, VoxelPoint, WorldPointRAS
from clickvol.io.volume import Volume
from clickvol.patches.field_of_view import FieldOfView, extract
from clickvol.preprocessing.channels import with_organ_channel
from clickvol.preprocessing.intensity import IntensityScale, intensity_scale, value_sample
from clickvol.prompts.simulate import extra_clicks
from clickvol.shapes import PADDING_LABEL

_Array32 = NDArray[np.float32]

MAX_CLICKS = 12
"""Slots for clicks in a sample; those that are not drawn with it are free for corrections."""

MAX_EXTRA_CLICKS = 4
"""Most clicks that are drawn beside the first one."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVolume:
    """A scan with its mask, ready to draw samples from.

    Attributes:
        volume: the scan.
        label: (D, H, W) uint8, 0 or 1.
        scale: its intensity scale.
        outside_value: value of what lies outside the scan, in the scan's unit.
        object_voxels_dhw: (n, 3) int16, voxels of the object: all, or a random part of those of a large one.
        object_runs_dhw: per axis, the slices that show the object.
        longest_side_mm: of the object's bounding box along the patient's axes.
        organ: (D, H, W) uint8, 0 or 1, for networks that see an organ mask; None where there is none.
    """

    volume: Volume
    label: NDArray[np.uint8]
    scale: IntensityScale
    outside_value: float
    object_voxels_dhw: NDArray[np.int16]
    object_runs_dhw: tuple[Runs, Runs, Runs]
    longest_side_mm: float
    organ: NDArray[np.uint8] | None = None

    @classmethod
    def of(
        cls, volume: Volume, label: NDArray[np.uint8], organ: NDArray[np.uint8] | None = None
    ) -> "LabelledVolume":
        """Take a scan of known modality and a mask with at least one voxel."""
        scale = intensity_scale(volume.modality, value_sample(volume))
        facts, row = measure(volume, label, volume.source)
        voxels, side = row.object_voxels_dhw, facts.longest_side_mm
        return cls(volume, label, scale, scale.outside, voxels, facts.runs_dhw, side, organ)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSample:
    """One sample; stacked into a batch by the loader.

    Attributes:
        patch: (C, D, H, W) float32: the scan, normalised, and for two channels the organ mask, 0 or 1 (the
            scan again where there is none).
        label: (1, D, H, W) uint8.
        points_dhw: (MAX_CLICKS, 3) float32, patch voxels.
        labels: (MAX_CLICKS,) int64, padding at the end.
        prior: (1, D, H, W) float32 in [-1, 1]; zeros where no earlier mask is given.
    """

    patch: Tensor
    label: Tensor
    points_dhw: Tensor
    labels: Tensor
    prior: Tensor

    def to(self, device: torch.device) -> "TrainingSample":
        """Return the sample on a device."""
        return TrainingSample(
            patch=self.patch.to(device, non_blocking=True),
            label=self.label.to(device, non_blocking=True),
            points_dhw=self.points_dhw.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            prior=self.prior.to(device, non_blocking=True),
        )


def draw_sample(
    case: LabelledVolume,
    patch_shape_dhw: tuple[int, int, int],
    config: SamplingSection,
    rng: np.random.Generator,
    *,
    num_channels: int = 1,
) -> TrainingSample:
    """Draw a sample: a random voxel of the object is clicked, the field of view is laid around it."""
    voxel = case.object_voxels_dhw[rng.integers(len(case.object_voxels_dhw))]
    kept = cut_around_object(case, config.cut_share, config.max_cut_mm, rng)
    scan_grid = case.volume.grid.crop(kept)
    click = case.volume.grid.to_world(VoxelPoint.of(voxel + rng.uniform(-0.5, 0.5, 3)))
    is_first_look = rng.random() < config.first_look_share
    field = _choose_field(case, click, patch_shape_dhw, config, rng, first_look=is_first_look)
    grid = turned(field.grid(), click, config.rotation_degrees, config.stretch, rng)
    bend = displacement(patch_shape_dhw, config.elastic_voxels, rng)

    def cut_out(array: NDArray[np.generic], outside_value: float) -> _Array32:
        return extract(
            array[kept.slices], scan_grid, grid, outside_value=outside_value, displacement_voxel=bend
        )

    image = cut_out(case.volume.array, case.outside_value)
    soft = cut_out(case.label, 0.0)
    label = soft > 0.5
    patch = spoil_intensity(case.scale.normalise(image), rng)[None]
    if num_channels > 1:
        organ = None if case.organ is None else cut_out(case.organ, 0.0)
        patch = with_organ_channel(patch[0], organ)
    centre = grid.to_voxel(click)
    first = PatchPoint.of(centre.as_array() - bend_at(bend, centre))
    points, signs = extra_clicks(first, label, MAX_EXTRA_CLICKS + 1, config.extra_click_share, rng)
    prior = np.zeros(patch_shape_dhw, dtype=np.float32)
    if not is_first_look and rng.random() < config.prior_share:
        prior = spoiled_mask(soft, rng)
    return clicked_sample(torch.from_numpy(patch), label, points, signs, torch.from_numpy(prior))


def clicked_sample(
    patch: Tensor,
    label: NDArray[np.bool_],
    points: list[PatchPoint],
    signs: list[int],
    prior: Tensor,
) -> TrainingSample:
    """Put a sample together.

    Args:
        patch: (C, D, H, W).
        label: (D, H, W).
        points: at most MAX_CLICKS clicks.
        signs: 1 inside or 0 beside, for each.
        prior: (D, H, W) in [-1, 1].
    """
    filled = torch.full((MAX_CLICKS,), PADDING_LABEL, dtype=torch.int64)
    filled[: len(signs)] = torch.tensor(signs, dtype=torch.int64)
    places = torch.zeros(MAX_CLICKS, 3)
    if points:
        places[: len(points)] = torch.tensor(np.array([p.as_array() for p in points]), dtype=torch.float32)
    return TrainingSample(
        patch=patch,
        label=torch.from_numpy(label.astype(np.uint8))[None],
        points_dhw=places,
        labels=filled,
        prior=prior[None],
    )


def unclicked_sample(
    patch: Tensor,
    label: NDArray[np.bool_],
    num_channels: int,
    organ: _Array32 | None = None,
) -> TrainingSample:
    """Put a sample without clicks together.

    Args:
        patch: (D, H, W), normalised.
        label: (D, H, W).
        num_channels: that the network takes.
        organ: (D, H, W) organ mask for two channels; None lays the scan there.
    """
    channels = patch[None]
    if num_channels > 1:
        channels = torch.from_numpy(with_organ_channel(patch.numpy(), organ))
    return clicked_sample(channels, label, [], [], torch.zeros(patch.shape))


def cut_around_object(
    case: LabelledVolume, share: float, max_cut_mm: float, rng: np.random.Generator
) -> VoxelBox:
    """Return what is kept of a scan: in some samples sides are cut off, never the object.

    Args:
        case: the scan.
        share: part of the samples that are cut.
        max_cut_mm: most that is cut off a side.
        rng: source of the randomness.
    """
    grid = case.volume.grid
    if rng.random() >= share:
        return grid.box
    most = max_cut_mm / grid.spacing_dhw_mm
    first = np.array([runs[0][0] for runs in case.object_runs_dhw])
    last = np.array([runs[-1][1] - 1 for runs in case.object_runs_dhw])
    start = np.minimum(rng.uniform(0, most), first).astype(int)
    stop = np.array(grid.shape_dhw) - rng.uniform(0, most).astype(int)
    return VoxelBox.of(start, np.maximum(stop, last + 1))


def _choose_field(
    case: LabelledVolume,
    click: WorldPointRAS,
    shape: tuple[int, int, int],
    config: SamplingSection,
    rng: np.random.Generator,
    *,
    first_look: bool,
) -> FieldOfView:
    if first_look:
        low, high = np.log(config.first_zoom)
        zoom = float(np.exp(rng.uniform(low, high)))
        return FieldOfView(click, config.first_voxel_mm * zoom, shape)
    low, high = np.log(config.fitted_extents)
    side_mm = case.longest_side_mm * float(np.exp(rng.uniform(low, high)))
    voxel_mm = float(np.clip(side_mm / max(shape), config.finest_voxel_mm, config.coarsest_voxel_mm))
    reach_mm = config.max_shift * voxel_mm * np.array(shape[::-1])
    centre = click.as_array() + rng.uniform(-1, 1, 3) * reach_mm
    return FieldOfView(WorldPointRAS.of(centre), voxel_mm, shape)


def spoiled_mask(soft: _Array32, rng: np.random.Generator) -> _Array32:
    """Return what a coarser look might have found: (D, H, W) in [-1, 1], from a label in [0, 1].

    The label is blurred over several voxels and a smooth error is added, so that the border moves in
    and out and parts are lost or gained.
    """
    size = int(rng.choice([3, 5, 7, 9]))
    mask = torch.from_numpy(soft)[None, None]
    blurred = F.avg_pool3d(mask, size, stride=1, padding=size // 2, count_include_pad=False)[0, 0].numpy()
    error = smooth_noise(1, shape_of(soft), int(rng.integers(5, 10)), rng)[0]
    wrong = blurred + np.float32(rng.uniform(0, 0.3)) * error
    return np.asarray(np.clip(4 * (wrong - 0.5), -1, 1), dtype=np.float32)


def stack(samples: list[TrainingSample]) -> TrainingSample:
    """Join samples into a batch: a new first axis on every field."""
    return TrainingSample(
        patch=torch.stack([s.patch for s in samples]),
        label=torch.stack([s.label for s in samples]),
        points_dhw=torch.stack([s.points_dhw for s in samples]),
        labels=torch.stack([s.labels for s in samples]),
        prior=torch.stack([s.prior for s in samples]),
    )
