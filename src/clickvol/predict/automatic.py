"""A network that takes no clicks, slid over the whole scan.

3DSAM-adapter's automatic variant and the baselines are tested like this: windows of the patch's shape, half
overlapping, their probabilities blended with Gaussian weights. Clicks, where some are given, choose parts of
the answer.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from clickvol.errors import DamagedWeightsError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.patches.field_of_view import FieldOfView, extract, paste, paste_box
from clickvol.predict.features import Array32, arithmetic
from clickvol.predict.organ_mask import check_organ_mask
from clickvol.predict.patch_predictor import Stopwatch, WorldClick
from clickvol.predict.recognised_scan import recognise_scan
from clickvol.predict.segmentation import FieldOfViewReport, Segmentation
from clickvol.predict.zoom_refinement import FAINT, THRESHOLD, keep_clicked
from clickvol.preprocessing.channels import with_organ_channel
from clickvol.preprocessing.intensity import IntensityScale
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.prompts.click import Click, check_any_inside
from clickvol.weights.load import LoadedModel

# Part of a window's side that the next one shares; the released test code of 3DSAM-adapter.
_OVERLAP = 0.5

# Planes that are brought from one grid to another at a time, so that the working memory stays a small part
# of the scan's. Chosen: more are not faster.
_SLAB_PLANES = 16


def segment_automatically(
    volume: Volume,
    clicks: list[Click],
    model: LoadedModel,
    *,
    modality: Modality | None = None,
    organ_mask: Mask | Volume | None = None,
) -> Segmentation:
    """Segment whatever an automatic network was trained for.

    Args:
        volume: the scan.
        clicks: none keeps everything found; with some, only connected parts under a click remain.
        model: whose network takes no clicks.
        modality: "CT" or "MR" where the file does not say it or says it wrongly.
        organ_mask: for a model that takes one, on any grid that lies over the scan; above 0 is organ.

    Raises:
        ClickError: for a click that is not finite or outside the scan, or when all clicks are beside the
            object.
        ConfigError: when an organ mask is given to a model that takes none, or lies nowhere in the scan.
        DamagedWeightsError: when the model's card says no voxel sizes.
    """
    grid, card = volume.grid, model.card
    placed = [WorldClick(click.world(grid), click.foreground) for click in clicks]
    if clicks:
        check_any_inside(clicks)
    if card.fields_of_view is None:
        raise DamagedWeightsError(
            f"the card of {card.id} says no voxel sizes to look with; take the model again"
        )
    checked_mask, mask_warnings = check_organ_mask(organ_mask, grid, model)
    stopwatch = Stopwatch()
    with stopwatch.stage("prepare"):
        recognised = recognise_scan(volume, model, modality)
        window = model.network.config.patch_shape_dhw
        whole = _around_scan(grid, card.fields_of_view.first_voxel_mm, window)
        image = _image(volume, recognised.scale, model, checked_mask, whole)
    probability, looks = _slide(image, model, whole, stopwatch)
    del image
    with stopwatch.stage("paste"):
        box, in_box = _on_scan(probability, whole, grid)
        array = np.zeros(grid.shape_dhw, dtype=np.uint8)
        array[box.slices] = _chosen(in_box, box, placed, grid)
    warnings = [*recognised.warnings, *mask_warnings]
    if any(not click.foreground for click in placed):
        warnings.append(f"{card.id} takes no clicks; those on the background were ignored")
    return Segmentation(
        mask=Mask(array, grid),
        clicks=tuple(clicks),
        modality=recognised.modality,
        model_id=card.id,
        fields_of_view=looks,
        seconds=stopwatch.seconds,
        warnings=tuple(warnings),
        probability_box=box,
        probability_in_box=in_box,
    )


def _around_scan(grid: VolumeGrid, voxel_mm: float, window: tuple[int, int, int]) -> FieldOfView:
    """Return a field of view over all voxel centres of the scan, and at least one window large.

    Where the voxels are those of the scan, it has its voxel centres.
    """
    low, high = (corner.as_array()[::-1] for corner in grid.extent_ras_mm())
    needed = np.ceil((high - low) / voxel_mm - 1e-6).astype(int) + 1
    shape = np.maximum(needed, window)
    first = (low + high) / 2 - voxel_mm * ((needed - 1) / 2 + (shape - needed) // 2)
    z, y, x = (first + voxel_mm * (shape - 1) / 2).tolist()
    d, h, w = shape.tolist()
    return FieldOfView(WorldPointRAS(x, y, z), voxel_mm, (d, h, w))


def _image(
    volume: Volume,
    scale: IntensityScale,
    model: LoadedModel,
    organ_mask: Mask | None,
    whole: FieldOfView,
) -> Array32:
    """Return what the network takes of the whole scan: (C, D, H, W)."""
    num_channels = model.network.config.num_channels
    image = np.empty((num_channels, *whole.shape_dhw), dtype=np.float32)
    for planes in _slabs(whole.shape_dhw[0]):
        part = _planes_of(whole.grid(), planes)
        values = extract(volume.array, volume.grid, part, outside_value=scale.outside)
        scan = scale.normalise(values)
        if num_channels == 1:
            image[0, planes] = scan
            continue
        organ = None
        if organ_mask is not None:
            organ = extract(organ_mask.array, organ_mask.grid, part, outside_value=0.0)
        image[:, planes] = with_organ_channel(scan, organ)
    return image


def _slide(
    image: Array32, model: LoadedModel, whole: FieldOfView, stopwatch: Stopwatch
) -> tuple[Array32, tuple[FieldOfViewReport, ...]]:
    """Run the network window by window.

    Args:
        image: (C, D, H, W).
        model: the model.
        whole: field of view of the image.
        stopwatch: gets the time of "encode" and "decode".

    Returns:
        (D, H, W) float32 probability of the object, and every window in order.
    """
    # Not at the top: it takes as long to import as torch, and only automatic models need it.
    from monai.inferers import sliding_window_inference

    no_clicks = PointPrompts(
        torch.zeros(1, 0, 3, device=model.device),
        torch.zeros(1, 0, dtype=torch.int64, device=model.device),
    )
    window = model.network.config.patch_shape_dhw
    looks: list[FieldOfViewReport] = []

    def look(patch: Tensor, places: list[list[slice]]) -> Tensor:
        """(1, C, D', H', W') of a window -> (1, 1, D', H', W')."""
        middle = [part.start + (side - 1) / 2 for part, side in zip(places[0][2:], window, strict=True)]
        centre = whole.grid().to_world(VoxelPoint(*middle))
        field = FieldOfView(centre, whole.voxel_mm, window)
        looks.append(FieldOfViewReport.of(field, "window slid over the scan"))
        with stopwatch.stage("encode"), arithmetic(model):
            encoded = model.network.encode_image(patch)
        with stopwatch.stage("decode"), arithmetic(model):
            logits = model.network.decode(encoded, no_clicks)
            return torch.softmax(logits.float(), dim=1)[:, 1:]

    with torch.inference_mode():
        found = sliding_window_inference(
            torch.from_numpy(image)[None],
            roi_size=window,
            sw_batch_size=1,
            predictor=look,
            overlap=_OVERLAP,
            mode="gaussian",
            sw_device=model.device,
            device="cpu",
            with_coord=True,
        )
    probability: Array32 = found[0, 0].numpy()
    return probability, tuple(looks)


def _on_scan(probability: Array32, whole: FieldOfView, grid: VolumeGrid) -> tuple[VoxelBox, Array32]:
    """Bring the probability to the scan's grid: the box of what is not faint, and its values."""
    box = paste_box(probability, whole.grid(), grid, FAINT)
    if box is None:
        return VoxelBox((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), dtype=np.float32)
    # The outermost voxel centres may be those of the scan; one more voxel around them keeps rounding from
    # putting the scan's outside.
    d, h, w = (n + 2 for n in whole.shape_dhw)
    padded = np.pad(probability, 1, mode="edge")
    padded_grid = FieldOfView(whole.centre, whole.voxel_mm, (d, h, w)).grid()
    in_box = np.empty(box.shape_dhw, dtype=np.float32)
    start, stop = box.start_dhw, box.stop_dhw
    for planes in _slabs(box.shape_dhw[0]):
        part = VoxelBox((start[0] + planes.start, *start[1:]), (start[0] + planes.stop, *stop[1:]))
        in_box[planes] = paste(padded, padded_grid, grid, part)
    return box, in_box


def _chosen(
    probability: Array32, box: VoxelBox, clicks: list[WorldClick], grid: VolumeGrid
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return the mask in its box: everything, or what the clicks inside choose."""
    mask = probability > THRESHOLD
    start = np.array(box.start_dhw)
    inside = [grid.to_voxel(c.place).as_array() - start for c in clicks if c.foreground]
    return keep_clicked(mask, inside) if inside else mask


def _planes_of(grid: VolumeGrid, planes: slice) -> VolumeGrid:
    """Return the grid of some planes of a grid along d."""
    affine = np.array(grid.affine_ras_mm)
    affine[:3, 3] += affine[:3, 0] * planes.start
    return VolumeGrid((planes.stop - planes.start, *grid.shape_dhw[1:]), affine)


def _slabs(num_planes: int) -> Iterator[slice]:
    for start in range(0, num_planes, _SLAB_PLANES):
        yield slice(start, min(start + _SLAB_PLANES, num_planes))
