"""A 2D network carried through a volume: clicked on a slice, each further one prompted by its neighbour's mask.

How SAM stands in tables of 3D methods where it is asked with the same click as they. The clicked slices get
their clicks; from each, slices up and down follow with the box of the neighbour's mask and its deepest pixel,
until a mask is empty or is no longer the neighbour's object. All of this is ours: no paper says how it did it.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.io.volume import Modality, Volume
from clickvol.predict.image_predictor import ImageModel, segment_image
from clickvol.preprocessing.intensity import recognise_modality, value_sample
from clickvol.preprocessing.slices2d import SliceView, slice_view, unit_values
from clickvol.prompts.click import Click
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts
from clickvol.prompts.spatial import check_any_prompt_inside

# Two neighbours show the same object when their masks overlap by this much (intersection over union). Chosen:
# at 5 mm between slices a ball of 40 mm keeps .5 up to its outermost slice.
_SAME_OBJECT = 0.5

SegmentSlice = Callable[[NDArray[np.float32], ImagePrompts], NDArray[np.bool_]]
"""A slice (H, W) in 0..1 and prompts -> its mask (H, W)."""


def segment_by_slices(volume: Volume, clicks: Sequence[Click], model: ImageModel) -> NDArray[np.bool_]:
    """Return the mask (D, H, W) of a 2D network carried through axial slices; as `carry_through`."""
    modality = recognise_modality(volume, value_sample(volume)).modality
    return carry_through(volume, clicks, modality, partial(_mask_of, model))


def _mask_of(model: ImageModel, image: NDArray[np.float32], prompts: ImagePrompts) -> NDArray[np.bool_]:
    return segment_image(image, prompts, model).mask


def carry_through(
    volume: Volume, clicks: Sequence[Click], modality: Modality, segment_slice: SegmentSlice
) -> NDArray[np.bool_]:
    """Carry any 2D segmentation through the axial slices of a volume: (D, H, W).

    A click counts on the slice that is nearest to it, and one outside the object only where a slice has one
    inside, too. The modality chooses the window of grey values; each slice that is reached is segmented once.
    ClickError for a click outside the scan, or none inside the object.
    """
    check_any_prompt_inside(clicks)
    result = np.zeros(volume.grid.shape_dhw, dtype=np.uint8)
    first = slice_view(volume.grid, "axial", 0)
    num_slices = volume.grid.shape_dhw[first.normal_axis]

    def segment(index: int, prompts: ImagePrompts) -> NDArray[np.bool_]:
        view = slice_view(volume.grid, "axial", index)
        return segment_slice(unit_values(view.cut(volume.array), modality), prompts)

    def add(index: int, mask: NDArray[np.bool_]) -> None:
        slice_view(volume.grid, "axial", index).cut(result)[mask] = 1

    on_slices = _clicks_on_slices(volume, clicks, first)
    clicked = {index: segment(index, prompts) for index, prompts in on_slices.items()}
    for index, mask in clicked.items():
        add(index, mask)
        for step in (-1, 1):
            before, at = mask, index + step
            while before.any() and 0 <= at < num_slices and at not in clicked:
                here = segment(at, _prompts_of(before))
                if not _same_object(before, here):
                    break
                add(at, here)
                before, at = here, at + step
    return result.astype(bool)


def _clicks_on_slices(volume: Volume, clicks: Sequence[Click], view: SliceView) -> dict[int, ImagePrompts]:
    """Return what is pointed at on each slice that has a click inside, slices in order."""
    shape = volume.grid.shape_dhw
    by_slice: dict[int, list[ImageClick]] = {}
    for click in clicks:
        voxel = volume.grid.to_voxel(click.world(volume.grid)).as_array()
        voxel = np.clip(voxel, 0, np.array(shape) - 1)
        row, column = (
            float(shape[axis] - 1 - voxel[axis] if flipped else voxel[axis])
            for axis, flipped in ((view.row_axis, view.row_flipped), (view.column_axis, view.column_flipped))
        )
        index = int(np.rint(voxel[view.normal_axis]))
        by_slice.setdefault(index, []).append(ImageClick(column, row, click.foreground))
    return {
        index: ImagePrompts(clicks=tuple(points))
        for index, points in sorted(by_slice.items())
        if any(point.foreground for point in points)
    }


def _prompts_of(mask: NDArray[np.bool_]) -> ImagePrompts:
    """Return the box of a mask that is not empty, and its deepest pixel: (H, W)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
    return ImagePrompts(
        clicks=(ImageClick(float(column), float(row)),),
        box_xyxy_pixel=(float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])),
    )


def _same_object(before: NDArray[np.bool_], here: NDArray[np.bool_]) -> bool:
    union = int((before | here).sum())
    return bool((before & here).sum() >= _SAME_OBJECT * union) and bool(here.any())
