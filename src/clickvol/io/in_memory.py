"""Objects of other programs in memory: the one place where what a user gives becomes a `Volume` or a `Mask`.

nibabel, SimpleITK and MONAI are known by what is loaded already, and imported only where their object is made.
"""

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import BadGeometryError, ConfigError, UnreadableVolumeError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import AxisOrder, Mask, SaidModality, Volume
from clickvol.io.voxel_values import clean_values, grey_voxels

if TYPE_CHECKING:
    import SimpleITK
    from monai.data.meta_tensor import MetaTensor
    from nibabel.spatialimages import SpatialImage

ImageLike: TypeAlias = Union["SpatialImage", "SimpleITK.Image", "MetaTensor"]
VolumeLike: TypeAlias = Union[Volume, "SpatialImage", "SimpleITK.Image", "MetaTensor"]
MaskLike: TypeAlias = Union[Mask, Volume, "SpatialImage", "SimpleITK.Image", "MetaTensor"]

# Module and class of what each program has; only those of a loaded module can be met.
_CLASSES = {
    "nibabel image": ("nibabel.spatialimages", "SpatialImage"),
    "SimpleITK image": ("SimpleITK", "Image"),
    "MetaTensor": ("monai.data.meta_tensor", "MetaTensor"),
}


def as_volume(scan: VolumeLike) -> Volume:
    """Return a scan of any program as a `Volume`; one of ours comes back as it is.

    Raises:
        UnreadableVolumeError: for anything else, 4D, colour, or a scan without content.
        BadGeometryError: for a grid that maps no voxel to a place.
    """
    if isinstance(scan, Volume):
        return scan
    return cleaned(stored_volume(scan), None)


def as_mask(mask: MaskLike) -> Mask:
    """Return a mask of any program as a `Mask`, the object where it is not 0; one of ours comes back as it is.

    Raises:
        UnreadableVolumeError: as `as_volume`, but a mask may be empty; also for values that are not finite.
        BadGeometryError: for a grid that maps no voxel to a place.
    """
    if isinstance(mask, Mask):
        return mask
    stored = mask if isinstance(mask, Volume) else stored_volume(mask)
    if stored.array.dtype.kind == "f" and not np.isfinite(stored.array).all():
        raise UnreadableVolumeError("the mask has voxels that are NaN or infinite; give 0 outside and 1 inside")
    return Mask((stored.array != 0).astype(np.uint8), stored.grid)


def arrays_of(
    one: NDArray[np.generic] | MaskLike, other: NDArray[np.generic] | MaskLike
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return two masks as arrays that can be compared: two arrays as they are, two with a place on one grid.

    Raises:
        BadGeometryError: when two masks do not lie on the same grid, or only one of them has a place.
        UnreadableVolumeError: as `as_mask`.
    """
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one, other
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        raise BadGeometryError(
            "one mask is a bare array and the other has a place; give both as arrays or both with one"
        )
    first, second = as_mask(one), as_mask(other)
    if not first.grid.same_place(second.grid):
        apart = second.grid.difference_from(first.grid)
        raise BadGeometryError(f"the masks lie on different grids: of the second, {apart}; resample it")
    return first.array, second.array


def stored_volume(image: object, *, expected: str | None = None, volume_index: int | None = None) -> Volume:
    """Return an image of nibabel, SimpleITK or MONAI with its values as they are, in memory of its own.

    Args:
        image: any of them, or `expected` alone, if given: "nibabel image", "SimpleITK image" or "MetaTensor".
        expected: the only one that is taken.
        volume_index: which volume of a 4D image, from 0.

    Raises:
        UnreadableVolumeError: for anything else, 4D without a choice, or colour.
        BadGeometryError: for a grid that maps no voxel to a place.
    """
    kind = kind_of(image)
    if expected not in (None, kind):
        raise UnreadableVolumeError(f"a {expected} is expected, but this is a {type(image).__name__}")
    if kind == "nibabel image":
        from clickvol.io.nifti.other_formats import volume_of_image

        return volume_of_image(image, "the nibabel image", volume_index=volume_index)
    if kind == "SimpleITK image":
        from clickvol.io.itk.files import volume_of_itk

        return volume_of_itk(image, volume_index=volume_index)
    if kind == "MetaTensor":
        return _volume_of_meta_tensor(image)
    name = type(image).__name__
    if name in ("ndarray", "Tensor"):
        raise UnreadableVolumeError(
            f"a bare {name} does not say where its voxels lie; make a scan of it by Volume.from_numpy(array, "
            'axes="ijk", affine_ras_mm=...)'
        )
    raise UnreadableVolumeError(
        f"a {name} is no scan; give a Volume (by read_volume), a nibabel or SimpleITK image, or a MetaTensor"
    )


def kind_of(image: object) -> str | None:
    """Return "nibabel image", "SimpleITK image", "MetaTensor", or None for anything else."""
    for kind, (module, name) in _CLASSES.items():
        if module in sys.modules and isinstance(image, getattr(sys.modules[module], name)):
            return kind
    return None


def cleaned(stored: Volume, modality: SaidModality | None) -> Volume:
    """Return a scan with missing values replaced, as readers of files do, and the modality that is said.

    Raises:
        UnreadableVolumeError: when no voxel is finite, or all have the same value.
        ConfigError: for a modality that is none.
    """
    if modality not in (None, "CT", "MR", "PT", "other"):
        raise ConfigError(f"{modality!r} is no modality; give CT, MR, PT or other")
    array, notes = clean_values(stored.array, stored.source or "the scan")
    return Volume(array, stored.grid, modality or stored.modality, notes=(*stored.notes, *notes))


def array_volume(
    array: NDArray[np.generic],
    *,
    axes: AxisOrder,
    affine_ras_mm: NDArray[np.floating] | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Volume:
    """Return an array and its place as a scan with its values as they are, in memory of its own.

    Args:
        array: three axes, any real dtype.
        axes: their order.
        affine_ras_mm: (4, 4), from indices in the order of `axes` to RAS mm.
        spacing_mm: three sizes of a voxel in that order instead; the scan then lies as ITK puts one without
            directions: i, j and k grow to left, posterior and superior, from (0, 0, 0) mm.

    Raises:
        UnreadableVolumeError: for another number of axes, no voxels, or values that are no real numbers.
        BadGeometryError: for both or neither of affine and spacing, or one that cannot be used.
        ConfigError: for another order of axes.
    """
    if axes not in ("dhw", "ijk"):
        raise ConfigError(f'the axes are {axes!r}; give "ijk" (as nibabel) or "dhw" (as SimpleITK\'s arrays)')
    values = grey_voxels(np.asarray(array), "the array")
    if values.ndim != 3 or 0 in values.shape:
        raise UnreadableVolumeError(
            f"the array has shape {values.shape}; three axes are expected, so choose one channel and time"
        )
    if (affine_ras_mm is None) == (spacing_mm is None):
        raise BadGeometryError("give either affine_ras_mm or spacing_mm, so that the voxels have a place")
    if spacing_mm is not None:
        steps = [float(step) for step in spacing_mm]
        if len(steps) != 3 or not all(math.isfinite(step) and step > 0 for step in steps):
            raise BadGeometryError(f"spacing_mm is {tuple(steps)}; three lengths above 0 are expected")
        d, h, w = steps if axes == "dhw" else steps[::-1]
        shape_dhw = values.shape if axes == "dhw" else values.shape[::-1]
        grid = VolumeGrid.axial(shape_dhw, (d, h, w))
    else:
        place = VolumeGrid if axes == "dhw" else VolumeGrid.from_ijk
        grid = place(values.shape, np.asarray(affine_ras_mm, dtype=np.float64))
    return Volume(np.array(values if axes == "dhw" else values.T, order="C"), grid)


def _volume_of_meta_tensor(tensor: "MetaTensor") -> Volume:
    """Return a MetaTensor, (i, j, k) or (1, i, j, k) as `EnsureChannelFirst` leaves it, in RAS or LPS mm."""
    values = tensor.detach().cpu()
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 3:
        raise UnreadableVolumeError(
            f"the MetaTensor has shape {tuple(tensor.shape)}; (1, i, j, k) is expected: apply "
            "EnsureChannelFirst and choose one channel, without a batch axis"
        )
    affine = np.asarray(tensor.affine.detach().cpu(), dtype=np.float64)
    if affine.shape != (4, 4):
        raise BadGeometryError(f"the affine of the MetaTensor has shape {affine.shape}; (4, 4) is expected")
    array = np.array(grey_voxels(values.as_tensor().numpy(), "the MetaTensor").T, order="C")
    in_lps = str(tensor.meta.get("space", "RAS")).rsplit(".", 1)[-1].upper() == "LPS"
    place = VolumeGrid.from_ijk_lps if in_lps else VolumeGrid.from_ijk
    return Volume(array, place(tuple(values.shape), affine))
