"""The published test procedure: one window around the clicks, on the scan resampled along its own axes.

As the released test code of ProMISe, 3DSAM-adapter and TAGS does it, and this package's own procedure
(`zoom_refinement.py`) does not: the scan is resampled whole, without averaging, to `floor(length * factor)`
voxels, where a voxel v of the new scan is read at (v + 0.5) / factor - 0.5 of the old one; the window is cut
around the middle of the clicks' bounding box, rounded down; what lies outside the scan is 0, normalised; the
probability is brought back by the ratio of the lengths, which is not quite the factor; and all of it above
0.5 counts. No second view, no connected parts. Only the window is computed here, which changes no value.

The released loaders give the network a file's axes in reverse, (k, j, i), but those of KiTS, which has slices
first, as they are. Models trained here learn along the patient. So models with the constants of colon, pancreas
or LiTS get (k, j, i) of any file, and all others the axes in the order that is nearest to the patient's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.geometry.interpolation import read_along
from clickvol.geometry.patient_axes import PatientAxes
from clickvol.io.volume import Volume
from clickvol.patches.field_of_view import FieldOfView, Triple, extract
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.patch_predictor import arithmetic
from clickvol.predict.placed_prompts import WorldClick
from clickvol.predict.segmentation import Array32, FieldOfViewReport, ScanProbability, Stopwatch
from clickvol.preprocessing.channels import with_organ_channel
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL
from clickvol.weights.load import LoadedModel
from clickvol.weights.official.importing import reads_reversed_axes

# A length times its factor that is a whole number but for the rounding of double precision is that number.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ResampledGrid:
    """The voxels that the released loader resamples a scan to, along its axes: (3,) new per old one."""

    native: VolumeGrid
    factor_dhw: NDArray[np.float64]
    shape_dhw: Triple

    @classmethod
    def of(cls, native: VolumeGrid, voxel_mm: float) -> "ResampledGrid":
        """Return the grid with voxels of one size."""
        factor = native.spacing_dhw_mm / voxel_mm
        d, h, w = np.maximum(1, np.floor(np.array(native.shape_dhw) * factor + _ROUNDING)).astype(int).tolist()
        return cls(native, factor, (d, h, w))

    def voxel_of(self, click: WorldClick) -> NDArray[np.int_]:
        """Return the new voxel that a click lies in: (3,), within the grid."""
        place = self.native.to_voxel(click.place).as_array()
        voxel = np.floor((place + 0.5) * self.factor_dhw + _ROUNDING).astype(int)
        return np.asarray(np.clip(voxel, 0, np.array(self.shape_dhw) - 1))

    def native_place(self, places_dhw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where new voxels lie among the old ones: (..., 3)."""
        return np.asarray((places_dhw + 0.5) / self.factor_dhw - 0.5)


def predict_published(
    scan: NormalisedScan,
    model: LoadedModel,
    clicks: Sequence[WorldClick],
    voxel_mm: float,
    stopwatch: Stopwatch,
) -> ScanProbability:
    """Return the probability of the object in one window, from at least one click, whatever their signs.

    `voxel_mm` is the side of the voxels that the scan is resampled to; 1 mm in all four papers.
    """
    native = scan.volume.grid
    x, y, z = PatientAxes.of(native).array_axis
    if (z, y, x) != (0, 1, 2) and not reads_reversed_axes(model.card.intensity):
        turned = Volume(scan.volume.array.transpose(z, y, x), native.permuted((z, y, x)), scan.volume.modality)
        result = predict_published(replace(scan, volume=turned), model, clicks, voxel_mm, stopwatch)
        back = np.argsort((z, y, x))
        box = VoxelBox.of(np.array(result.box.start_dhw)[back], np.array(result.box.stop_dhw)[back])
        return replace(result, box=box, probability=result.probability.transpose(back))
    grid = ResampledGrid.of(native, voxel_mm)
    places = np.array([grid.voxel_of(click) for click in clicks])
    shape = model.network.config.patch_shape_dhw
    start = (places.max(axis=0) + places.min(axis=0)) // 2 - np.array(shape) // 2
    window = VoxelBox.of(start, start + np.array(shape))
    inside = window.clip(grid.shape_dhw)
    with stopwatch.stage("encode"), arithmetic(model):
        patch = _window_of(scan, grid, window, inside)
        encoded = model.network.encode_image(torch.from_numpy(patch)[None].to(model.device))
    with stopwatch.stage("decode"), arithmetic(model):
        labels = [FOREGROUND_LABEL if click.foreground else BACKGROUND_LABEL for click in clicks]
        prompts = PointPrompts(
            torch.from_numpy((places - start).astype(np.float32))[None].to(model.device),
            torch.tensor([labels], dtype=torch.int64, device=model.device),
        )
        logits = model.network.decode(encoded, prompts)
        probability = torch.softmax(logits[0].float(), dim=0)[1].cpu().numpy()
    box, on_scan = _to_native(probability[inside.relative_to(window).slices], inside, grid)
    middle = grid.native_place((np.array(window.start_dhw) + window.stop_dhw - 1) / 2)
    field = FieldOfView(native.to_world(VoxelPoint.of(middle)), voxel_mm, shape)
    view = FieldOfViewReport.of(field, "the one window of the published procedure, along the scan's axes")
    return ScanProbability(box, on_scan, (view,), keeps_all_parts=True)


def _window_of(scan: NormalisedScan, grid: ResampledGrid, window: VoxelBox, inside: VoxelBox) -> Array32:
    """Return the window, (C, D, H, W), normalised, 0 outside the scan."""
    read = [
        grid.native_place(np.arange(first, last, dtype=np.float64)[:, None])[:, axis]
        for axis, (first, last) in enumerate(zip(inside.start_dhw, inside.stop_dhw, strict=True))
    ]
    values = scan.scale.normalise(_read(scan.volume.array, read))
    channels = values[None]
    if scan.num_channels > 1:
        mask = scan.organ_mask
        organ = None
        if mask is not None:
            on_scan: NDArray[np.generic] = mask.array
            if not mask.grid.same_place(scan.volume.grid):
                on_scan = extract(mask.array, mask.grid, scan.volume.grid, outside_value=0.0) > 0.5
            organ = _read(on_scan, read)
        channels = with_organ_channel(values, organ)
    result = np.zeros((len(channels), *window.shape_dhw), dtype=np.float32)
    result[(slice(None), *inside.relative_to(window).slices)] = channels
    return result


def _to_native(probability: Array32, inside: VoxelBox, grid: ResampledGrid) -> tuple[VoxelBox, Array32]:
    """Return which of the scan's voxels read from a box of new voxels, and their probability."""
    starts, stops, read = [], [], []
    for axis in range(3):
        length, new_length = grid.native.shape_dhw[axis], grid.shape_dhw[axis]
        places = (np.arange(length) + 0.5) * (new_length / length) - 0.5
        places = np.clip(places, 0, new_length - 1)
        first, last = inside.start_dhw[axis], inside.stop_dhw[axis]
        near = np.flatnonzero((places > first - 1) & (places < last))
        if not len(near):  # the window lies between two slices
            return VoxelBox.whole((1, 1, 1)), np.zeros((1, 1, 1), dtype=np.float32)
        starts.append(int(near[0]))
        stops.append(int(near[-1]) + 1)
        # One voxel of 0 lies around the box, where the scan goes on.
        read.append(places[near] - (first - 1))
    box = VoxelBox.of(starts, stops)
    return box, _read(np.pad(probability, 1), read)


def _read(array: NDArray[np.generic], places_dhw: Sequence[NDArray[np.float64]]) -> Array32:
    """Read (D, H, W) linearly on rising places along each axis; beyond the outermost centres their value."""
    places = [np.clip(at, 0, length - 1) for at, length in zip(places_dhw, array.shape, strict=True)]
    box = VoxelBox.of([int(at[0]) for at in places], [int(np.ceil(at[-1])) + 1 for at in places])
    values: Array32 = array[box.slices].astype(np.float32)
    for axis, start in enumerate(box.start_dhw):
        values = read_along(values, axis, places[axis] - start).astype(np.float32, copy=False)
    return values
