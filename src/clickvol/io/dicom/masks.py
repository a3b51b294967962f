"""Masks from DICOM: a Segmentation or an RT Structure Set, on the grid of the scan they were drawn on."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import UnreadableVolumeError
from clickvol.files.native_stderr import silent_native_stderr
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.contours import contours_mask
from clickvol.io.dicom.plane_placing import Plane, grid_of_planes, place_plane, slice_positions
from clickvol.io.dicom.reading.headers import shown_text, valid_value
from clickvol.io.dicom.reading.pixels import dataset_is_compressed, is_of_decoder
from clickvol.io.dicom.reading.search import START_BYTES, is_dicom_start
from clickvol.io.input_path import unreadable_path
from clickvol.io.labelled_mask import LabelledMask, label_map
from clickvol.io.volume import Mask

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# PS3.4, B.5: Segmentation, Label Map Segmentation, RT Structure Set.
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"

# PS3.3, C.8.8.6.3; points, open lines and the like enclose nothing.
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")

# Of a probability or an occupancy: the voxels that are more in than out.
_FRACTION = 0.5

_MAX_LISTED = 12
_MAX_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class _Part:
    """One segment or region of a file, not drawn yet."""

    number: int
    name: str


def is_dicom_mask(path: Path) -> bool:
    """Tell whether a path is a single DICOM file, as masks are; scans are folders of them."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_dicom_start(file.read(START_BYTES))
    except (OSError, ValueError) as error:
        raise unreadable_path(path, error) from error


def holds_masks(path: Path) -> bool:
    """Tell whether a path is a DICOM Segmentation or RT Structure Set."""
    if not is_dicom_mask(path):
        return False
    from pydicom import dcmread

    header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
    return header.get("SOPClassUID", "") in (*_SEGMENTATIONS, _RT_STRUCTURE_SET)


def read_mask_file(
    path: str | Path, grid: VolumeGrid | None = None, *, segment: str | int | None = None
) -> list[LabelledMask]:
    """Read the masks of a DICOM Segmentation or RT Structure Set, in the order of the file; they may be empty.

    Segmentations are laid by the positions of their own planes, in whatever order these come; fractional
    ones count from one half. Contours of one slice are combined by odd and even (XOR), so that a contour
    inside another one is a hole; a voxel belongs to the object when its centre lies inside.

    Args:
        path: the file.
        grid: of the scan that it was drawn on; None for the smallest grid through the planes of a Segmentation.
        segment: only the one of this number or name; None for all.

    Raises:
        UnreadableVolumeError: when the file is damaged, is neither of the two, has no such segment, does not
            lie on the grid, or has contours but no grid was given.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that break their type
        return [labelled for _, labelled in _read(Path(path), grid, segment)]


def read_label_map(path: Path, grid: VolumeGrid) -> NDArray[np.generic]:
    """Read all masks of a file as one array (D, H, W) of segment or ROI numbers, 0 outside all.

    Where they overlap, the smaller one is seen. Errors as `read_mask_file`; also where the file is empty.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = _read(path, grid, None)
    if not any(labelled.mask.num_voxels for _, labelled in drawn):
        raise UnreadableVolumeError(
            f"{path} is an empty label: no voxel belongs to an object; check that this is the right file"
        )
    numbers = np.array([0, *(part.number for part, _ in drawn)])
    return np.asarray(numbers[label_map([labelled for _, labelled in drawn])])


def _read(path: Path, grid: VolumeGrid | None, segment: str | int | None) -> list[tuple[_Part, LabelledMask]]:
    dataset = _read_dataset(path)
    sop_class = str(valid_value(dataset, "SOPClassUID") or "")
    try:
        if sop_class in _SEGMENTATIONS:
            return _read_segmentation(path, dataset, grid, segment)
        if sop_class == _RT_STRUCTURE_SET:
            return _read_contours(path, dataset, grid, segment)
    except UnreadableVolumeError:
        raise
    except Exception as error:
        # pydicom raises whatever it meets where a header is without what the standard demands.
        raise UnreadableVolumeError(
            f"{path} is a damaged or incomplete DICOM mask ({shown_text(error)}); export it again"
        ) from error
    kind = shown_text(valid_value(dataset, "Modality")) or "unknown"
    raise UnreadableVolumeError(
        f"{path} is a DICOM file of modality {kind}, but a mask is a Segmentation (SEG) or an RT Structure Set "
        "(RTSTRUCT); for a scan, give the folder of its series"
    )


def _read_dataset(path: Path) -> "Dataset":
    import pydicom

    if not is_dicom_mask(path):
        what = "is not a DICOM file" if os.path.lexists(path) else "does not exist"
        raise UnreadableVolumeError(f"{path} {what}; give a DICOM Segmentation or RT Structure Set")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(path)
        except Exception as error:
            # pydicom raises whatever its parser met: KeyError, struct.error, ValueError, ...
            raise UnreadableVolumeError(
                f"{path} is a damaged or unreadable DICOM file; copy it again"
            ) from error


def _chosen(path: Path, parts: list[_Part], requested: str | int | None) -> list[_Part]:
    if requested is None:
        return parts
    chosen = [p for p in parts if requested in (p.number, p.name)]
    chosen = chosen or [p for p in parts if str(p.number) == str(requested)]
    if len(chosen) == 1:
        return chosen
    listed = ", ".join(f"{p.number} {shown_text(p.name)!r}" for p in parts[:_MAX_LISTED])
    more = f" and {len(parts) - _MAX_LISTED} more" if len(parts) > _MAX_LISTED else ""
    what = f"{len(chosen)} objects" if chosen else "no object"
    raise UnreadableVolumeError(
        f"{path} has {what} called {requested!r}; choose one of {listed}{more} by its number"
    )


def _labelled(part: _Part, array: NDArray[np.uint8], grid: VolumeGrid) -> tuple[_Part, LabelledMask]:
    name = "".join(c for c in part.name if c.isprintable() and c != "\\").strip()
    shown = name[:_MAX_NAME_LENGTH] or f"object {part.number}"
    return part, LabelledMask(name=shown, mask=Mask(array, grid), made_by="person")


def _read_segmentation(
    path: Path, dataset: "Dataset", grid: VolumeGrid | None, requested: str | int | None
) -> list[tuple[_Part, LabelledMask]]:
    parts = [
        _Part(int(item.SegmentNumber), str(item.get("SegmentLabel", ""))) for item in dataset.SegmentSequence
    ]
    if str(dataset.SegmentationType) == "LABELMAP":
        parts = [p for p in parts if p.number != 0]  # the background
    chosen = _chosen(path, parts, requested)
    frames = _frame_sources(dataset)
    planes = [_plane(frame) for frame in frames]
    if not planes:
        raise UnreadableVolumeError(
            f"{path} has no frame, so nothing says where its segments lie; export it again"
        )
    shape_hw = (int(dataset.Rows), int(dataset.Columns))
    grid = grid_of_planes(planes, shape_hw, str(path)) if grid is None else grid
    arrays = {p.number: np.zeros(grid.shape_dhw, np.uint8) for p in chosen}
    pixels = _pixels(path, dataset).reshape(len(planes), *shape_hw)
    for frame, plane, values in zip(frames, planes, pixels, strict=True):
        for number, inside in _segments_of_frame(dataset, frame, values):
            if number in arrays and inside.any():
                place_plane(inside, plane, grid, arrays[number], str(path))
    return [_labelled(p, arrays[p.number], grid) for p in chosen]


def _pixels(path: Path, dataset: "Dataset") -> NDArray[np.generic]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with silent_native_stderr() if dataset_is_compressed(dataset) else contextlib.nullcontext():
                return np.asarray(dataset.pixel_array)
        except BaseException as error:
            # pydicom and its decoders raise whatever they met: NotImplementedError, RuntimeError, ...
            if not is_of_decoder(error):
                raise
            how = (
                f", compressed as {shown_text(dataset.file_meta.TransferSyntaxUID.name)},"
                if dataset_is_compressed(dataset)
                else ""
            )
            raise UnreadableVolumeError(
                f"{path} has pixels{how} that nothing installed here decodes, or that are cut off; save it "
                "uncompressed, or export it again"
            ) from error


def _segments_of_frame(
    dataset: "Dataset", frame: tuple["Dataset", ...], pixels: NDArray[np.generic]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield the number of each segment in a frame and where it is, (H, W)."""
    kind = str(dataset.SegmentationType)
    if kind == "LABELMAP":
        for number in np.unique(pixels).tolist():
            yield int(number), np.equal(pixels, number)
        return
    identity = _macro(frame, "SegmentIdentificationSequence")
    number = int(identity.ReferencedSegmentNumber)
    if kind == "FRACTIONAL":
        limit = float(dataset.get("MaximumFractionalValue") or 255)
        yield number, np.greater_equal(pixels, _FRACTION * limit)
    else:
        yield number, np.not_equal(pixels, 0)


def _frame_sources(dataset: "Dataset") -> list[tuple["Dataset", ...]]:
    """Return for each frame the functional groups that hold for it, its own before the shared ones."""
    shared = tuple(dataset.get("SharedFunctionalGroupsSequence") or ())
    own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    return [(item, *shared) for item in own]


def _macro(sources: tuple["Dataset", ...], keyword: str) -> Any:  # noqa: ANN401 - a data set
    for source in sources:
        if source.get(keyword):
            return source[keyword].value[0]
    raise ValueError(f"a frame has no {keyword}")


def _plane(sources: tuple["Dataset", ...]) -> Plane:
    position = _macro(sources, "PlanePositionSequence").ImagePositionPatient
    orientation = _macro(sources, "PlaneOrientationSequence").ImageOrientationPatient
    spacing = _macro(sources, "PixelMeasuresSequence").PixelSpacing
    return Plane(
        position_lps_mm=np.array([float(v) for v in position]),
        orientation_lps=np.array([float(v) for v in orientation]),
        spacing_hw_mm=(float(spacing[0]), float(spacing[1])),
    )


def _read_contours(
    path: Path, dataset: "Dataset", grid: VolumeGrid | None, requested: str | int | None
) -> list[tuple[_Part, LabelledMask]]:
    if grid is None:
        raise UnreadableVolumeError(
            f"{path} holds contours, which have no voxels; give the scan that they were drawn on"
        )
    parts = [
        _Part(int(item.ROINumber), str(item.get("ROIName", ""))) for item in dataset.StructureSetROISequence
    ]
    items = {int(i.ReferencedROINumber): i for i in dataset.get("ROIContourSequence") or ()}
    return [
        _labelled(part, _rasterised(path, items.get(part.number), grid), grid)
        for part in _chosen(path, parts, requested)
    ]


def _rasterised(path: Path, item: "Dataset | None", grid: VolumeGrid) -> NDArray[np.uint8]:
    """Return the region inside the contours of an object: (D, H, W), 0 or 1."""
    polygons: dict[int, list[NDArray[np.float64]]] = {}
    for contour in () if item is None else item.get("ContourSequence") or ():
        if str(contour.ContourGeometricType) not in _CLOSED:
            continue
        points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
        index, polygon = slice_positions(points, grid, str(path))
        polygons.setdefault(index, []).append(polygon)
    array = np.zeros(grid.shape_dhw, np.uint8)
    for index, of_slice in polygons.items():
        array[index] = contours_mask(of_slice, grid.shape_dhw[1:])
    return array
