"""NIfTI headers: what they promise about the voxels and the grid, and headers for masks.

Parsed by nibabel, but the checks are ours: nibabel repairs, and would replace a zero spacing by 1 mm and go on.
"""

from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import BadGeometryError, OutputError, UnreadableVolumeError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import choose_volume

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header, Nifti1Image

_HEADER_BYTES = {1: 348, 2: 540}
_MIN_DATA_OFFSET = {b"n+1": 352, b"n+2": 544, b"ni1": 0, b"ni2": 0}
_MAX_NIFTI1_AXIS = 32767

_UNITS_NOT_MM = {1: "metres", 3: "micrometres"}
_MAX_XFORM_CODE = 5
_SCANNER_CODE = 1

# A qform has no shear. Where dropping the shear would move a corner further than this, only the
# sform is written.
_MAX_QFORM_ERROR_MM = 1e-3
_MAX_WRITTEN_ERROR_MM = 1e-2

# A qform in single precision comes out of its quaternion by less.
_MAX_FORMS_APART_VOXELS = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class NiftiGeometry:
    """The redundant geometry of a NIfTI header, kept so that a mask repeats it to the bit.

    Attributes:
        sform_ijk_ras_mm, qform_ijk_ras_mm: (4, 4), or None where the header has none.
        sform_code, qform_code: NIfTI xform codes, 0 to 5.
        zooms_ijk_mm: pixdim 1 to 3 as stored.
        xyzt_units: the header's unit byte.
        quaternion_bcd: the quaternion of the qform as stored; near half a turn it does not come
            back from the matrix to the bit.
    """

    sform_ijk_ras_mm: NDArray[np.float64] | None
    qform_ijk_ras_mm: NDArray[np.float64] | None
    sform_code: int
    qform_code: int
    zooms_ijk_mm: tuple[float, float, float]
    xyzt_units: int
    quaternion_bcd: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class VoxelLayout:
    """Where the voxels of one volume lie in the (uncompressed) file."""

    shape_ijk: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset_bytes: int

    @property
    def num_bytes(self) -> int:
        """Number of bytes of all voxels."""
        i, j, k = self.shape_ijk
        return i * j * k * self.dtype.itemsize


def parse_header(
    stream: BufferedIOBase, path: Path, *, is_pair: bool = False
) -> tuple["Nifti1Header", list[str]]:
    """Read the header at the start of an uncompressed file; `is_pair` where the voxels are in another one.

    Fields that mean nothing are put right, with a sentence for each that was ignored. UnreadableVolumeError
    when this is not the header of a NIfTI file with voxels.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    block = stream.read(max(_HEADER_BYTES.values()))
    magic1, magic2 = block[344:348], block[4:8]
    kind = b"ni" if is_pair else b"n+"
    if magic1 == kind + b"1\0" and len(block) >= _HEADER_BYTES[1]:
        header = Nifti1Header(block[: _HEADER_BYTES[1]], check=False)
    elif magic2 == kind + b"2\0" and len(block) >= _HEADER_BYTES[2]:
        header = Nifti2Header(block[: _HEADER_BYTES[2]], check=False)
    elif magic1 == b"ni1\0" or magic2 == b"ni2\0":
        raise UnreadableVolumeError(
            f"{path} is the header of a NIfTI pair (.hdr and .img), not a file with header and voxels; call it "
            ".hdr, beside its .img"
        )
    else:
        raise UnreadableVolumeError(
            f"{path} is not a NIfTI image: its header is missing or cut off; give a NIfTI file, "
            "or check that the download is complete"
        )

    return header, repair_fields(header)


def repair_fields(header: "Nifti1Header") -> list[str]:
    """Put fields right that mean nothing, in place, and return a sentence for each that was ignored."""
    notes = []
    for form in ("sform_code", "qform_code"):
        code = int(header[form])
        if not 0 <= code <= _MAX_XFORM_CODE:
            notes.append(f"The header's {form} {code} is not a NIfTI code and was ignored.")
            header[form] = 0
    units = _UNITS_NOT_MM.get(int(header["xyzt_units"]) & 7)
    if units:
        notes.append(f"The header gives lengths in {units}; they were read as millimetres.")
    # The standard: every qfac but -1 means 1. The spacing of an axis that is not there is unused.
    header["pixdim"][0] = -1.0 if header["pixdim"][0] == -1.0 else 1.0
    for axis in range(max(int(header["dim"][0]), 0) + 1, 4):
        header["pixdim"][axis] = 1.0
    return notes


def voxel_layout(header: "Nifti1Header", path: Path, volume_index: int | None) -> VoxelLayout:
    """Return where the voxels of the chosen volume lie; UnreadableVolumeError for what is not real grey."""
    try:
        dtype = np.dtype(header.get_data_dtype())
    except KeyError as error:
        raise UnreadableVolumeError(
            f"{path} has the unknown data type code {int(header['datatype'])}; the header is "
            "damaged, export the scan again"
        ) from error
    if dtype.fields is not None:
        raise UnreadableVolumeError(
            f"{path} is a colour (RGB) image; a single grey channel is expected, so export that"
        )
    if dtype.kind not in "iuf":
        what = "complex numbers" if dtype.kind == "c" else f"values of type {dtype}"
        raise UnreadableVolumeError(
            f"{path} holds {what}; a real grey channel is expected, so export the magnitude"
        )

    shape_ijk, num_volumes = _shape(header, path)
    index = choose_volume(path, (*shape_ijk, num_volumes), volume_index)
    offset = max(int(np.nan_to_num(header["vox_offset"])), _MIN_DATA_OFFSET[header["magic"].item()[:3]])
    volume_bytes = shape_ijk[0] * shape_ijk[1] * shape_ijk[2] * dtype.itemsize
    return VoxelLayout(shape_ijk, dtype, offset + index * volume_bytes)


def _shape(header: "Nifti1Header", path: Path) -> tuple[tuple[int, int, int], int]:
    """Return the shape of one volume and the number of volumes."""
    num_axes = int(header["dim"][0])
    shape = tuple(int(n) for n in header["dim"][1 : num_axes + 1])
    if not 1 <= num_axes <= 7 or min(shape) < 0:
        raise UnreadableVolumeError(
            f"{path} has a damaged header: its dim field is {header['dim'].tolist()}; copy it again"
        )
    if 0 in shape:
        raise UnreadableVolumeError(
            f"{path} is an empty scan: its shape {shape} has an axis without voxels; export it again"
        )
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 1:
        raise UnreadableVolumeError(
            f"{path} is a row of {shape[0]} values, not an image; a 3D scan is expected"
        )
    if len(shape) == 5 and shape[3] == 1:
        raise UnreadableVolumeError(
            f"{path} is a vector image of shape {shape} with {shape[4]} values per voxel; a single "
            "grey channel is expected, so export one"
        )
    if len(shape) > 4:
        raise UnreadableVolumeError(
            f"{path} has {len(shape)} axes, shape {shape}; a 3D scan is expected, so export one"
        )
    i, j, k, num_volumes = (*shape, 1, 1)[:4] if len(shape) < 4 else shape
    return (i, j, k), num_volumes


def read_scaling(header: "Nifti1Header", path: Path) -> tuple[float, float]:
    """Return (slope, intercept) of the stored values; UnreadableVolumeError for an intercept like NaN."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # The standard: slope 0 means no scaling. nibabel reads a slope that is no number the same way.
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise UnreadableVolumeError(
            f"{path} has the intensity intercept {intercept:g} (scl_inter); repair the header"
        )
    return slope, intercept


def read_geometry(
    header: "Nifti1Header", path: Path | str
) -> tuple[NDArray[np.float64], NiftiGeometry, list[str]]:
    """Return the affine of (i, j, k) in RAS mm, the header geometry to repeat, and notes.

    The sform counts before the qform, as in nibabel; without both, nibabel's fallback does. BadGeometryError
    for a spacing or an orientation that cannot be used.
    """
    zooms = tuple(float(v) for v in header["pixdim"][1:4])
    if not all(np.isfinite(v) and v > 0 for v in zooms):
        spacing = ", ".join(f"{v:g}" for v in zooms)
        raise BadGeometryError(
            f"{path}: the voxel spacing (pixdim) is ({spacing}) mm, but every spacing must be a "
            "number above zero; repair the header of the file"
        )
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    sform = np.asarray(header.get_sform(), dtype=np.float64)
    qform = _qform(header)
    notes = []
    if sform_code:
        affine = sform
    elif qform_code:
        if qform is None:
            raise BadGeometryError(f"{path}: the orientation quaternion (qform) is invalid; repair the header")
        affine = qform
    else:
        affine = np.asarray(header.get_base_affine(), dtype=np.float64)
        notes.append(
            "There is no orientation in the header; left is assumed to be on the right of the "
            "stored image (radiological), and the origin in its centre."
        )
    if sform_code and qform_code and qform is not None:
        notes += _disagreement(header, sform, qform)
    if not np.isfinite(affine).all():
        raise BadGeometryError(f"{path}: the orientation holds values that are not finite; repair the header")
    geometry = NiftiGeometry(
        sform_ijk_ras_mm=sform,
        qform_ijk_ras_mm=qform,
        sform_code=sform_code,
        qform_code=qform_code if qform is not None else 0,
        zooms_ijk_mm=(zooms[0], zooms[1], zooms[2]),
        xyzt_units=int(header["xyzt_units"]),
        quaternion_bcd=_quaternion(header) if qform is not None else None,
    )
    return affine, geometry, notes


def _disagreement(
    header: "Nifti1Header", sform_ijk_ras_mm: NDArray[np.float64], qform_ijk_ras_mm: NDArray[np.float64]
) -> list[str]:
    """Return a note where the two forms of a header lie apart by more than a tenth of a voxel."""
    num_axes = min(int(header["dim"][0]), 3)
    last_ijk = np.ones(3)
    last_ijk[:num_axes] = header["dim"][1 : num_axes + 1]
    corners = VoxelBox.of((0, 0, 0), last_ijk).corners_dhw(0.5)
    apart = (sform_ijk_ras_mm - qform_ijk_ras_mm)[:3]
    distance_mm = float(np.linalg.norm(corners @ apart[:, :3].T + apart[:, 3], axis=1).max())
    if distance_mm <= _MAX_FORMS_APART_VOXELS * float(np.min(header["pixdim"][1:4])):
        return []
    codes = f"codes {int(header['sform_code'])} and {int(header['qform_code'])}"
    return [
        f"The header has two orientations, sform and qform ({codes}), that lie up to {distance_mm:.3g} mm "
        "apart; the sform was used."
    ]


def _qform(header: "Nifti1Header") -> NDArray[np.float64] | None:
    from nibabel.spatialimages import HeaderDataError

    try:
        qform = np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError):
        return None
    return qform if np.isfinite(qform).all() else None


def _quaternion(header: "Nifti1Header") -> tuple[float, float, float]:
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    return (b, c, d)


def nibabel_image(array: NDArray[np.generic], grid: VolumeGrid) -> "Nifti1Image":
    """Return a copy of an array (D, H, W) as an image of nibabel (NIfTI-2 where `make_header` needs it).

    Raises:
        OutputError: as `make_header`.
    """
    from nibabel.nifti1 import Nifti1Image
    from nibabel.nifti2 import Nifti2Header, Nifti2Image

    header = make_header(array, grid)
    kind = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    return kind(array.copy().T, grid.affine_ijk_ras_mm, header)


def make_header(array: NDArray[np.generic], grid: VolumeGrid) -> "Nifti1Header":
    """Return the header to write before an array (D, H, W), as `write_nifti` says, slope 1 and intercept 0.

    OutputError when the kept header geometry is that of another grid.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    kept = grid.file_facts if isinstance(grid.file_facts, NiftiGeometry) else None
    if max(array.shape) <= _MAX_NIFTI1_AXIS:
        header = _fill(Nifti1Header(), array, grid, kept)
        # A scan in NIfTI-2, or one far from the origin, has a place in double precision, which NIfTI-1 rounds.
        moved_mm = _moved_mm(header.get_best_affine(), grid)
        if moved_mm <= _MAX_WRITTEN_ERROR_MM if kept is None else _repeats(header, kept, grid):
            return header
    header = _fill(Nifti2Header(), array, grid, kept)
    error_mm = _moved_mm(header.get_best_affine(), grid)
    if error_mm > _MAX_WRITTEN_ERROR_MM:
        raise OutputError(
            f"the NIfTI header kept with the grid would move the mask by {error_mm:.3g} mm; read the scan again"
        )
    return header


def _fill(
    header: "Nifti1Header",
    array: NDArray[np.generic],
    grid: VolumeGrid,
    kept: NiftiGeometry | None,
) -> "Nifti1Header":
    header["vox_offset"] = _MIN_DATA_OFFSET[header["magic"].item()[:3]]
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    if kept is None:
        _set_scanner_forms(header, grid)
        return header
    if kept.qform_ijk_ras_mm is not None:
        header.set_qform(kept.qform_ijk_ras_mm, kept.qform_code)
    if kept.quaternion_bcd is not None:
        for name, value in zip("bcd", kept.quaternion_bcd, strict=True):
            header[f"quatern_{name}"] = value
    if kept.sform_ijk_ras_mm is not None:
        header.set_sform(kept.sform_ijk_ras_mm, kept.sform_code)
    header["pixdim"][1:4] = kept.zooms_ijk_mm
    header["xyzt_units"] = kept.xyzt_units
    return header


def _repeats(header: "Nifti1Header", kept: NiftiGeometry, grid: VolumeGrid) -> bool:
    """Tell whether the header holds the geometry to the bit."""
    pairs = [
        (header.get_best_affine(), grid.affine_ijk_ras_mm),
        (header.get_qform(), kept.qform_ijk_ras_mm),
        (header.get_sform(), kept.sform_ijk_ras_mm),
        (header["pixdim"][1:4], np.array(kept.zooms_ijk_mm)),
    ]
    return all(wanted is None or np.array_equal(held, wanted) for held, wanted in pairs)


def _set_scanner_forms(header: "Nifti1Header", grid: VolumeGrid) -> None:
    affine = grid.affine_ijk_ras_mm
    header.set_xyzt_units("mm")
    header.set_qform(affine, _SCANNER_CODE)
    if _moved_mm(header.get_qform(), grid) > _MAX_QFORM_ERROR_MM:
        header.set_qform(np.eye(4), 0)
    header.set_sform(affine, _SCANNER_CODE)
    header["pixdim"][1:4] = grid.spacing_dhw_mm[::-1]


def _moved_mm(affine_ijk_ras_mm: NDArray[np.float64], grid: VolumeGrid) -> float:
    """Return how far a corner of the grid lies from where this affine would put it, at most."""
    return VolumeGrid.from_ijk(grid.shape_dhw[::-1], affine_ijk_ras_mm).corner_distance_mm(grid)
