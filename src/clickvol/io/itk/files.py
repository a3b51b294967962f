"""NRRD and MetaImage files, and images in memory, through SimpleITK. ITK's LPS millimetres become RAS here."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import BadGeometryError, OutputError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.files.native_stderr import silent_native_stderr
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.compression import DEFAULT_LEVEL
from clickvol.io.itk.headers import refuse_voxels_elsewhere, text_fields, with_kinds
from clickvol.io.volume import Volume, choose_volume
from clickvol.io.voxel_values import clean_values, grey_voxels

if TYPE_CHECKING:
    from SimpleITK import Image, ImageFileReader

# Direction cosines are often stored with four decimals; more than that is a shear.
_MAX_SHEAR = 1e-3

_IMAGE_IO = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
# Told to write these, ITK would put the voxels into a second file, and two files are not written at once.
_WRITTEN_AS = {".nhdr": ".nrrd", ".mhd": ".mha"}


@dataclass(frozen=True, slots=True)
class ItkGeometry:
    """A grid as ITK has it, directions row by row, kept so that what is written has it to the bit."""

    spacing_ijk_mm: tuple[float, ...]
    direction_lps: tuple[float, ...]
    origin_lps_mm: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Header:
    """What ITK says about a file before its voxels are read, and what its text says besides."""

    size_ijk: tuple[int, ...]
    spacing_ijk_mm: NDArray[np.float64]
    direction_lps: NDArray[np.float64]
    origin_lps_mm: NDArray[np.float64]
    num_components: int
    fields: dict[str, str]

    @property
    def components_are_volumes(self) -> bool:
        """Tell whether ITK took the time axis of a NRRD sequence for a vector."""
        return bool({"list", "time"} & set(self.fields.get("kinds", "").split()))


def read_itk(path: Path, *, volume_index: int | None = None, limits: ReadLimits | None = None) -> Volume:
    """Read a .nrrd, .nhdr, .mha or .mhd file; the array (D, H, W) in the stored dtype.

    .nhdr and .mhd name a second file with the voxels, which is not read where there are limits. Errors as
    `read_nifti`.
    """
    if limits is not None:
        refuse_voxels_elsewhere(path)
    with with_kinds(path) as readable:
        return _read(readable, path, volume_index, limits)


def _read(readable: Path, path: Path, volume_index: int | None, limits: ReadLimits | None) -> Volume:
    """Read a file that may stand for the one that messages name."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(readable))
    # Not left to ITK, which knows no suffix in capitals.
    reader.SetImageIO(_IMAGE_IO[path.suffix.lower()])
    try:
        with silent_native_stderr():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable_header(path, error) from error
    header = _header(reader, int(reader.GetNumberOfComponents()), text_fields(readable))
    index = _check_axes(header, path, volume_index)
    # Before the voxels are read: ITK makes a negative spacing positive without a word.
    _check_geometry(header, path)
    if limits is not None:
        limits.check_voxels(math.prod(header.size_ijk[:3]), str(path))
        one_voxel = sitk.Image([1, 1, 1], reader.GetPixelID(), header.num_components)
        stored = math.prod(header.size_ijk) * header.num_components
        limits.check_bytes(stored * one_voxel.GetSizeOfPixelComponent(), str(path))
    if len(header.size_ijk) == 4:
        reader.SetExtractIndex((0, 0, 0, index))
        reader.SetExtractSize((*header.size_ijk[:3], 0))
    try:
        with silent_native_stderr():
            image = reader.Execute()
    except RuntimeError as error:
        raise UnreadableVolumeError(
            f"{path} is truncated or damaged: its header reads well, but its voxels do not (for "
            ".nhdr and .mhd: the data file beside it may be missing); copy it again"
        ) from error
    if header.num_components > 1:
        image = sitk.VectorIndexSelectionCast(image, index)
    array = sitk.GetArrayFromImage(image)
    del image
    array, notes = clean_values(array if array.ndim == 3 else array[np.newaxis], str(path))
    grid = _grid(header)
    return Volume(array=array, grid=grid, source=str(path), notes=(*_notes(header, path), *notes))


def volume_of_itk(image: "Image", *, volume_index: int | None = None) -> Volume:
    """Return an image of SimpleITK with its values as they are, in memory of its own.

    Args:
        image: 2D, 3D, or 4D with a choice; one grey channel.
        volume_index: which 3D volume of a 4D image to take, from 0.

    Raises:
        UnreadableVolumeError: not one grey channel, or 4D without a choice of volume.
        BadGeometryError: a spacing or directions that cannot be used.
    """
    import SimpleITK as sitk

    source = "the SimpleITK image"
    header = _header(image, image.GetNumberOfComponentsPerPixel(), {})
    index = _check_axes(header, source, volume_index)
    _check_geometry(header, source)
    array = sitk.GetArrayFromImage(image[..., index] if len(header.size_ijk) == 4 else image)
    return Volume(grey_voxels(array if array.ndim == 3 else array[np.newaxis], source), _grid(header))


def itk_image(array: NDArray[np.generic], grid: VolumeGrid, name: str) -> "Image":
    """Return a copy of an array (D, H, W) as an image of SimpleITK.

    Raises:
        OutputError: for a sheared grid; the message says that `name` cannot hold it.
    """
    import SimpleITK as sitk

    check_perpendicular(grid, name)
    if isinstance(grid.file_facts, ItkGeometry):
        place = grid.file_facts
    else:
        affine_lps = grid.affine_ijk_lps_mm
        spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
        direction = affine_lps[:3, :3] / spacing
        place = ItkGeometry(
            tuple(spacing.tolist()), tuple(direction.ravel().tolist()), tuple(affine_lps[:3, 3].tolist())
        )
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(place.spacing_ijk_mm)
    image.SetDirection(place.direction_lps)
    image.SetOrigin(place.origin_lps_mm)
    return image


def write_itk(
    array: NDArray[np.generic], grid: VolumeGrid, path: Path, *, compression_level: int | None = None
) -> None:
    """Write an array (D, H, W) as .nrrd, .nhdr, .mha or .mhd: always one file, header and voxels.

    OutputError when the grid is sheared, or ITK cannot write.
    """
    import SimpleITK as sitk

    image = itk_image(array, grid, path.name)
    level = DEFAULT_LEVEL if compression_level is None else compression_level
    written = path.with_suffix(_WRITTEN_AS.get(path.suffix.lower(), path.suffix))
    try:
        with silent_native_stderr():
            sitk.WriteImage(image, str(written), useCompression=level > 0, compressionLevel=level)
        written.replace(path)
    except RuntimeError as error:
        raise OutputError(
            f"cannot write {path.name}: the disk may be full or the folder not writable"
        ) from error


def check_perpendicular(grid: VolumeGrid, name: str) -> None:
    """Refuse a sheared grid, which ITK does not hold (OutputError: `name` cannot be written)."""
    axes = grid.affine_ijk_lps_mm[:3, :3]
    direction = axes / np.linalg.norm(axes, axis=0)
    if np.abs(direction.T @ direction - np.eye(3)).max() > _MAX_SHEAR:
        raise OutputError(
            f"cannot write {name}: the grid of the scan is sheared (its axes are not perpendicular), which "
            "SimpleITK and programs that read NRRD and MetaImage do not expect; write .nii.gz instead"
        )


def _unreadable_header(path: Path, error: RuntimeError) -> Exception:
    if re.search(r"spacing|space vector|space directions", str(error)):
        msg = (
            f"{path}: the voxel spacing or the space directions in the header cannot be used; "
            "every spacing must be a number above zero; repair the header of the file"
        )
        return BadGeometryError(msg)
    msg = (
        f"{path} is not a readable {path.suffix.lower()} image: its header is missing, damaged or "
        "of another format (or the data file of a .nhdr is missing); check that the file is "
        "complete and its suffix right"
    )
    return UnreadableVolumeError(msg)


def _header(reader: "ImageFileReader | Image", num_components: int, fields: dict[str, str]) -> _Header:
    num_axes = len(reader.GetSize())
    return _Header(
        size_ijk=tuple(reader.GetSize()),
        spacing_ijk_mm=np.array(reader.GetSpacing()),
        direction_lps=np.array(reader.GetDirection()).reshape(num_axes, num_axes),
        origin_lps_mm=np.array(reader.GetOrigin()),
        num_components=num_components,
        fields=fields,
    )


def _check_axes(header: _Header, path: Path | str, volume_index: int | None) -> int:
    """Return the index of the volume to read."""
    size, num_axes = header.size_ijk, len(header.size_ijk)
    if 0 in size:
        raise UnreadableVolumeError(
            f"{path} is an empty scan: its shape {size} has an axis without voxels; export it again"
        )
    if header.num_components > 1 and not header.components_are_volumes:
        raise UnreadableVolumeError(
            f"{path} has {header.num_components} values per voxel (a colour (RGB), vector or "
            "complex image); a single grey channel is expected, so export one"
        )
    if not 2 <= num_axes <= 4 or (num_axes == 4 and header.num_components > 1):
        raise UnreadableVolumeError(
            f"{path} has {num_axes} axes, shape {size}; a 3D scan is expected, so export one"
        )
    i, j, k, num_volumes = (*size, 1, 1)[:4]
    if header.num_components > 1:
        num_volumes = header.num_components
    return choose_volume(path, (i, j, k, num_volumes), volume_index)


def _check_geometry(header: _Header, path: Path | str) -> None:
    # ITK drops a NRRD spacing that is no number, so the text is asked as well.
    stated = header.fields.get("spacings", "").split()[: len(header.size_ijk)]
    unknown = header.num_components == 1 and any(_is_nan(value) for value in stated)
    spacing = header.spacing_ijk_mm[:3]
    if unknown or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        values = ", ".join(stated) if unknown else ", ".join(f"{v:g}" for v in spacing)
        raise BadGeometryError(
            f"{path}: the voxel spacing is ({values}) mm, but every spacing must be a number above "
            "zero; repair the header of the file"
        )
    direction = header.direction_lps[:3, :3]
    if not np.isfinite(direction).all() or not np.isfinite(header.origin_lps_mm).all():
        raise BadGeometryError(
            f"{path}: the orientation or the origin is not finite; repair the header of the file"
        )
    _grid(header)


def _is_nan(text: str) -> bool:
    try:
        return math.isnan(float(text))
    except ValueError:
        return False


def _grid(header: _Header) -> VolumeGrid:
    """Return the grid of the first three axes; a 2D image is one slice, 1 mm thick."""
    num_axes = min(len(header.size_ijk), 3)
    part = slice(0, num_axes)
    spacing, direction, origin, size = np.ones(3), np.eye(3), np.zeros(3), [1, 1, 1]
    spacing[part] = header.spacing_ijk_mm[part]
    direction[part, part] = header.direction_lps[part, part]
    origin[part] = header.origin_lps_mm[part]
    size[part] = header.size_ijk[part]
    affine_lps = np.eye(4)
    affine_lps[:3, :3] = direction * spacing
    affine_lps[:3, 3] = origin
    facts = ItkGeometry(tuple(spacing.tolist()), tuple(direction.ravel().tolist()), tuple(origin.tolist()))
    return VolumeGrid.from_ijk_lps((size[0], size[1], size[2]), affine_lps, facts)


def _notes(header: _Header, path: Path) -> list[str]:
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        known = "space directions" in header.fields
        spaced = known or "spacings" in header.fields
    else:
        known = any(f in header.fields for f in ("transformmatrix", "orientation", "rotation"))
        spaced = any(f in header.fields for f in ("elementspacing", "elementsize"))
    notes = []
    if not spaced:
        notes.append("There is no voxel spacing in the header; 1 mm is assumed.")
    if not known:
        notes.append(
            "There is no orientation in the header; the stored axes are assumed to run to the "
            "patient's left, back and head."
        )
    return notes
