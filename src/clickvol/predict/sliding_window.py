"""A network that takes no clicks, slid over the whole scan.

3DSAM-adapter's automatic variant and the baselines are tested like this: windows of the patch's shape, half
overlapping, their probabilities blended with Gaussian weights.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView, paste, paste_box
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.patch_predictor import arithmetic
from clickvol.predict.segmentation import FAINT, Array32, FieldOfViewReport, ScanProbability, Stopwatch
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.weights.load import LoadedModel

# Part of a window's side that the next one shares; the released test code of 3DSAM-adapter.
_OVERLAP = 0.5

# Planes that are brought from one grid to another at a time, so that the working memory stays a small part
# of the scan's. Chosen: more are not faster.
_SLAB_PLANES = 16


def slide_over_scan(
    scan: NormalisedScan, model: LoadedModel, voxel_mm: float, stopwatch: Stopwatch
) -> ScanProbability:
    """Return what an automatic network was trained for, with voxels of this side, in the whole scan."""
    grid = scan.volume.grid
    whole = _around_scan(grid, voxel_mm, model.network.config.patch_shape_dhw)
    with stopwatch.stage("prepare"):
        image = np.empty((scan.num_channels, *whole.shape_dhw), dtype=np.float32)
        for slab in _slabs(whole.grid().box):
            image[:, *slab.slices] = scan.sample(whole.grid().crop(slab))
    with stopwatch.stage("paste"):
        probability, views = _slide(image, model, whole, stopwatch)
        del image
        box, in_box = _on_scan(probability, whole, grid)
    return ScanProbability(box, in_box, views)


def _around_scan(grid: VolumeGrid, voxel_mm: float, window: tuple[int, int, int]) -> FieldOfView:
    """Return a field of view over all voxel centres of the scan, and at least one window large.

    Where the voxels are those of the scan, it has its voxel centres.
    """
    low, high = (corner.as_array()[::-1] for corner in grid.extent_ras_mm())
    needed = np.ceil((high - low) / voxel_mm - 1e-6).astype(int) + 1
    shape = np.maximum(needed, window)
    first = (low + high) / 2 - voxel_mm * ((needed - 1) / 2 + (shape - needed) // 2)
    centre = WorldPointRAS.of((first + voxel_mm * (shape - 1) / 2)[::-1])
    return FieldOfView(centre, voxel_mm, VoxelBox.of((0, 0, 0), shape).shape_dhw)


def _slide(
    image: Array32, model: LoadedModel, whole: FieldOfView, stopwatch: Stopwatch
) -> tuple[Array32, tuple[FieldOfViewReport, ...]]:
    """Run the network window by window over an image (C, D, H, W); return (D, H, W) and the windows."""
    # Not at the top: it takes as long to import as torch, and only automatic models need it.
    from monai.inferers import sliding_window_inference

    no_clicks = PointPrompts(
        torch.zeros(1, 0, 3, device=model.device),
        torch.zeros(1, 0, dtype=torch.int64, device=model.device),
    )
    window = model.network.config.patch_shape_dhw
    views: list[FieldOfViewReport] = []

    def predict(patch: Tensor, places: list[list[slice]]) -> Tensor:
        """(1, C, D', H', W') of a window -> (1, 1, D', H', W')."""
        middle = [part.start + (side - 1) / 2 for part, side in zip(places[0][2:], window, strict=True)]
        centre = whole.grid().to_world(VoxelPoint.of(middle))
        field_of_view = FieldOfView(centre, whole.voxel_mm, window)
        views.append(FieldOfViewReport.of(field_of_view, "window slid over the scan"))
        with stopwatch.stage("encode"), arithmetic(model):
            encoded = model.network.encode_image(patch)
        with stopwatch.stage("decode"), arithmetic(model):
            logits = model.network.decode(encoded, no_clicks)
            return torch.softmax(logits.float(), dim=1)[:, 1:]

    with torch.inference_mode():
        stitched = sliding_window_inference(
            torch.from_numpy(image)[None],
            roi_size=window,
            sw_batch_size=1,
            predictor=predict,
            overlap=_OVERLAP,
            mode="gaussian",
            sw_device=model.device,
            device="cpu",
            with_coord=True,
        )
    probability: Array32 = stitched[0, 0].numpy()
    return probability, tuple(views)


def _on_scan(probability: Array32, whole: FieldOfView, grid: VolumeGrid) -> tuple[VoxelBox, Array32]:
    """Bring the probability to the scan's grid: the box of what is not faint, and its values."""
    box = paste_box(probability, whole.grid(), grid, FAINT)
    if box is None:
        return VoxelBox.whole((1, 1, 1)), np.zeros((1, 1, 1), dtype=np.float32)
    # The outermost voxel centres may be those of the scan; one more voxel around them keeps rounding from
    # putting the scan's outside.
    d, h, w = (n + 2 for n in whole.shape_dhw)
    padded = np.pad(probability, 1, mode="edge")
    padded_grid = FieldOfView(whole.centre, whole.voxel_mm, (d, h, w)).grid()
    in_box = np.empty(box.shape_dhw, dtype=np.float32)
    for slab in _slabs(box):
        in_box[slab.relative_to(box).slices] = paste(padded, padded_grid, grid, slab)
    return box, in_box


def _slabs(box: VoxelBox) -> Iterator[VoxelBox]:
    """Cut a box along d."""
    (start, *side_start), (stop, *side_stop) = box.start_dhw, box.stop_dhw
    for d in range(start, stop, _SLAB_PLANES):
        yield VoxelBox.of((d, *side_start), (min(d + _SLAB_PLANES, stop), *side_stop))
