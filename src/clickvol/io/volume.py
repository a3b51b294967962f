"""A scan and a mask: an array, its grid, and what is known of them; to and from other programs' objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import UnreadableVolumeError
from clickvol.geometry.grid import VolumeGrid

if TYPE_CHECKING:
    import SimpleITK
    from monai.data.meta_tensor import MetaTensor
    from nibabel.nifti1 import Nifti1Image
    from nibabel.spatialimages import SpatialImage

Modality = Literal["CT", "MR", "PT", "other", "unknown"]

SaidModality = Literal["CT", "MR", "PT", "other"]
"""What a user can say that a scan is; "other" is seen on a scale of its own values."""

AxisOrder = Literal["dhw", "ijk"]
"""Of an array: "ijk" as nibabel has it, "dhw" the reverse, as arrays of SimpleITK and all arrays here."""


class _Voxels:
    """What a scan and a mask share: an array (D, H, W) on a grid."""

    __slots__ = ()
    array: NDArray[np.generic]
    grid: VolumeGrid

    def to_numpy(self, *, axes: AxisOrder) -> NDArray[np.generic]:
        """Return a copy of the voxels in an order of axes."""
        return np.array(self.array if axes == "dhw" else self.array.T, order="C")

    def to_nibabel(self) -> "Nifti1Image":
        """Return a copy as an image of nibabel: the exact affine, and the header geometry of a NIfTI source.

        Raises:
            OutputError: when NIfTI cannot hold the place.
        """
        from clickvol.io.nifti.headers import nibabel_image

        return nibabel_image(self.array, self.grid)

    def to_sitk(self) -> "SimpleITK.Image":
        """Return a copy as an image of SimpleITK; spacing and directions of one from there are kept to the bit.

        Raises:
            OutputError: for a sheared grid, which SimpleITK cannot hold.
        """
        from clickvol.io.itk.files import itk_image

        return itk_image(self.array, self.grid, "a SimpleITK image")


@dataclass(frozen=True, slots=True, eq=False)
class Volume(_Voxels):
    """A scan, from a file or from memory; the array is not to be changed.

    Attributes:
        array: (D, H, W), any real dtype, C order, finite. CT in Hounsfield units.
        grid: where its voxels lie.
        modality: as the file says; "unknown" where it does not (most NIfTI files).
        source: the file or folder it was read from, for messages and for refusing to overwrite it.
        notes: what was repaired while reading, one sentence each ("12 NaN voxels were ...").
    """

    array: NDArray[np.generic]
    grid: VolumeGrid
    modality: Modality = "unknown"
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def from_numpy(
        cls,
        array: NDArray[np.generic],
        *,
        axes: AxisOrder,
        affine_ras_mm: NDArray[np.floating] | None = None,
        spacing_mm: Sequence[float] | None = None,
        modality: SaidModality | None = None,
    ) -> "Volume":
        """Take a copy of an array as a scan.

        Args:
            array: three axes, any real dtype; CT in Hounsfield units.
            axes: their order, "ijk" or "dhw".
            affine_ras_mm: (4, 4), from indices in that order to RAS mm.
            spacing_mm: instead of it, three sizes of a voxel in that order; i, j and k then grow to left,
                posterior and superior, from (0, 0, 0) mm.
            modality: "CT", "MR", "PT" or "other"; None leaves it to the values.

        Raises:
            UnreadableVolumeError: for another number of axes, no real numbers, or a scan without content.
            BadGeometryError: for both or neither of affine and spacing, or one that cannot be used.
            ConfigError: for an order of axes or a modality that is none.
        """
        from clickvol.io.in_memory import array_volume, cleaned

        return cleaned(
            array_volume(array, axes=axes, affine_ras_mm=affine_ras_mm, spacing_mm=spacing_mm), modality
        )

    @classmethod
    def from_nibabel(
        cls, image: "SpatialImage", *, modality: SaidModality | None = None, volume_index: int | None = None
    ) -> "Volume":
        """Take a copy of an image of nibabel as a scan, the same one that `read_volume` reads from its file.

        Args:
            image: 3D, or 4D with a choice.
            modality: as `from_numpy`.
            volume_index: which volume of a 4D image, from 0.

        Raises:
            UnreadableVolumeError: for another image, or a scan without content.
            BadGeometryError: for a grid that maps no voxel to a place.
            ConfigError: for a modality that is none.
        """
        return cls._from("nibabel image", image, modality, volume_index)

    @classmethod
    def from_sitk(
        cls, image: "SimpleITK.Image", *, modality: SaidModality | None = None, volume_index: int | None = None
    ) -> "Volume":
        """Take a copy of an image of SimpleITK as a scan; the rest as `from_nibabel`."""
        return cls._from("SimpleITK image", image, modality, volume_index)

    @classmethod
    def from_monai(cls, tensor: "MetaTensor", *, modality: SaidModality | None = None) -> "Volume":
        """Take a copy of a MetaTensor, (i, j, k) or (1, i, j, k), as a scan; the rest as `from_nibabel`."""
        return cls._from("MetaTensor", tensor, modality, None)

    @classmethod
    def _from(
        cls, expected: str, image: object, modality: SaidModality | None, volume_index: int | None
    ) -> "Volume":
        from clickvol.io.in_memory import cleaned, stored_volume

        return cleaned(stored_volume(image, expected=expected, volume_index=volume_index), modality)


@dataclass(frozen=True, slots=True, eq=False)
class Mask(_Voxels):
    """A segmentation on the grid of its scan.

    Attributes:
        array: (D, H, W) uint8, 0 background and 1 object.
        grid: the grid of the scan.
    """

    array: NDArray[np.uint8]
    grid: VolumeGrid

    @classmethod
    def from_numpy(
        cls,
        array: NDArray[np.generic],
        *,
        axes: AxisOrder,
        affine_ras_mm: NDArray[np.floating] | None = None,
        spacing_mm: Sequence[float] | None = None,
    ) -> "Mask":
        """Take an array as a mask: the object is where it is not 0; the rest as `Volume.from_numpy`."""
        from clickvol.io.in_memory import array_volume, as_mask

        return as_mask(array_volume(array, axes=axes, affine_ras_mm=affine_ras_mm, spacing_mm=spacing_mm))

    @classmethod
    def from_nibabel(cls, image: "SpatialImage") -> "Mask":
        """Take an image of nibabel as a mask: the object is where it is not 0.

        Raises:
            UnreadableVolumeError: for another image, 4D, or values that are not finite.
            BadGeometryError: for a grid that maps no voxel to a place.
        """
        return cls._from("nibabel image", image)

    @classmethod
    def from_sitk(cls, image: "SimpleITK.Image") -> "Mask":
        """Take an image of SimpleITK as a mask; as `from_nibabel`."""
        return cls._from("SimpleITK image", image)

    @classmethod
    def from_monai(cls, tensor: "MetaTensor") -> "Mask":
        """Take a MetaTensor, (i, j, k) or (1, i, j, k), as a mask; as `from_nibabel`."""
        return cls._from("MetaTensor", tensor)

    @classmethod
    def _from(cls, expected: str, image: object) -> "Mask":
        from clickvol.io.in_memory import as_mask, stored_volume

        return as_mask(stored_volume(image, expected=expected))

    @property
    def num_voxels(self) -> int:
        """Number of object voxels."""
        return int(np.count_nonzero(self.array))

    @property
    def volume_ml(self) -> float:
        """Volume of the object in millilitres."""
        return self.num_voxels * self.grid.voxel_volume_mm3 / 1000.0


def choose_volume(path: Path | str, shape_ijkt: tuple[int, int, int, int], index: int | None) -> int:
    """Return which volume to read, of a file with three sizes and a number of volumes.

    UnreadableVolumeError for several volumes and no index, or an index out of range.
    """
    num_volumes = shape_ijkt[3]
    if index is None:
        if num_volumes == 1:
            return 0
        raise UnreadableVolumeError(
            f"{path} is 4D with shape {shape_ijkt}: its fourth axis holds {num_volumes} volumes, "
            "but one 3D scan is expected; pick one with --volume N or volume_index=N "
            f"(N from 0 to {num_volumes - 1})",
            volumes=("",) * num_volumes,
        )
    if not 0 <= index < num_volumes:
        valid = "only 0 is valid" if num_volumes == 1 else f"valid are 0 to {num_volumes - 1}"
        raise UnreadableVolumeError(
            f"{path} has no volume {index}; it holds {num_volumes}, so {valid} for --volume"
        )
    return index
