"""Masks as a DICOM Segmentation: one file, one bit per voxel, one segment per object.

highdicom makes the file. What it is given of the scan are headers made anew from what was read of its
slices: it checks the originals more strictly than scanners and archives write them.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import OutputError, require
from clickvol.io.dicom.mask_writing import (
    DISCLAIMER,
    MANUFACTURER,
    algorithm_name,
    algorithm_type,
    algorithm_version,
    mask_description,
    patient_and_study,
    series_number,
    write_dicom_masks,
)
from clickvol.io.dicom.reading.headers import shown_text
from clickvol.io.dicom.sources import SourceImages, item_of
from clickvol.io.dicom.uids import new_uid
from clickvol.io.labelled_mask import LabelledMask, display_colour, label_map
from clickvol.version import __version__

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.dataset import Dataset

require_highdicom = partial(
    require, "highdicom", extra="dicom", purpose="writing DICOM masks and probabilities", error=OutputError
)


def dicom_seg(masks: Sequence[LabelledMask], images: SourceImages) -> "Segmentation":
    """Return masks, at least one, as a DICOM Segmentation that refers to the images of their scan."""
    require_highdicom()
    import highdicom.seg

    pixels = _pixels(masks)
    headers, order = source_headers(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the names and dates of a scan as it is
        try:
            segmentation = highdicom.seg.Segmentation(
                source_images=headers,
                pixel_array=pixels[order],
                segmentation_type="BINARY",
                segment_descriptions=[_segment(n, m) for n, m in enumerate(masks, start=1)],
                manufacturer_model_name=algorithm_name(masks[0]),
                content_label="SEGMENTATION",
                **series_facts(images),
            )
            name_frames(segmentation, images, order)
            return segmentation
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"the series cannot carry a DICOM segmentation ({shown_text(error)}); write it as RTSTRUCT or "
                ".nii.gz"
            ) from error


def series_facts(images: SourceImages) -> dict[str, Any]:
    """Return what all files of highdicom say of themselves, as arguments."""
    return {
        "series_instance_uid": new_uid(),
        "series_number": series_number(images),
        "sop_instance_uid": new_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": "none",
        "content_description": DISCLAIMER,
        "series_description": f"clickvol: {DISCLAIMER}",
        "specific_character_set": "ISO_IR 192",
    }


def _pixels(masks: Sequence[LabelledMask]) -> NDArray[np.generic]:
    """Return a label map (D, H, W); where a voxel is in two objects (D, H, W, objects), which is larger."""
    labels: NDArray[np.generic] = label_map(masks)
    if np.count_nonzero(labels) == sum(m.mask.num_voxels for m in masks):
        return labels
    return np.stack([(m.mask.array != 0).astype(np.uint8) for m in masks], axis=-1)


def _segment(number: int, labelled: LabelledMask) -> "SegmentDescription":
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import Code, codes

    made_by_model = labelled.made_by != "person"
    algorithm = AlgorithmIdentificationSequence(
        name=algorithm_name(labelled),
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm_version(labelled),
        source=MANUFACTURER,
    )
    segment = SegmentDescription(
        segment_number=number,
        segment_label=labelled.name,
        segmented_property_category=Code(labelled.term.category_code, "SCT", labelled.term.category),
        segmented_property_type=Code(labelled.term.code, "SCT", labelled.term.meaning),
        algorithm_type=algorithm_type(labelled),
        algorithm_identification=algorithm if made_by_model else None,
        tracking_uid=new_uid(),
        tracking_id=labelled.name,
        display_color=CIELabColor.from_rgb(*(labelled.colour or display_colour(number))),
    )
    # The attribute; the class is named after the macro that holds it.
    segment.SegmentDescription = mask_description(labelled)
    return segment


def source_headers(images: SourceImages) -> tuple[list["Dataset"], list[int]]:
    """Return headers of the scan's files for highdicom, and for each of its planes the index along d."""
    if all(s.frame is None for s in images.slices):
        headers = [_slice_header(images, index) for index in range(len(images.slices))]
        return headers, list(range(len(headers)))
    check_one_file(images)
    order = sorted(range(len(images.slices)), key=lambda i: images.slices[i].frame or 0)
    return [_multi_frame_header(images, order)], order


def check_one_file(images: SourceImages) -> None:
    """Refuse what a DICOM segmentation cannot refer to; OutputError for the frames of several files."""
    if len({s.sop_instance_uid for s in images.slices if s.frame is not None}) > 1:
        raise OutputError(
            "the scan has several multi-frame files, and a DICOM segmentation can refer to one; write it as "
            "RTSTRUCT or .nii.gz"
        )


def name_frames(derived: "Dataset", images: SourceImages, order: list[int]) -> None:
    """Name frames by their numbers in the file of the scan: what highdicom was given holds one volume alone."""
    frames = [images.slices[index].frame for index in order]
    if None in frames or frames == list(range(len(frames))):
        return
    for group in derived.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", ()):
            for source in derivation.SourceImageSequence:
                number = int(source.ReferencedFrameNumber) - 1
                source.ReferencedFrameNumber = (frames[number] or 0) + 1


def _slice_header(images: SourceImages, index: int) -> "Dataset":
    header = _file_header(images, index)
    header.ImagePositionPatient = _decimals(images.slices[index].position_lps_mm)
    header.ImageOrientationPatient = _decimals(images.orientation_lps)
    header.update(item_of(**_measures(images)))
    return header


def _multi_frame_header(images: SourceImages, order: list[int]) -> "Dataset":
    header = _file_header(images, 0)
    header.NumberOfFrames = len(order)
    header.SharedFunctionalGroupsSequence = [
        item_of(
            PixelMeasuresSequence=[item_of(**_measures(images))],
            PlaneOrientationSequence=[item_of(ImageOrientationPatient=_decimals(images.orientation_lps))],
        )
    ]
    positions = [_decimals(images.slices[index].position_lps_mm) for index in order]
    header.PerFrameFunctionalGroupsSequence = [
        item_of(PlanePositionSequence=[item_of(ImagePositionPatient=position)]) for position in positions
    ]
    return header


def _file_header(images: SourceImages, index: int) -> "Dataset":
    header = patient_and_study(images)
    for keyword in ("SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(header, keyword, images.text(keyword))
    header.SOPClassUID = images.slices[index].sop_class_uid
    header.SOPInstanceUID = images.slices[index].sop_instance_uid
    header.Modality = images.text("Modality")
    header.Rows, header.Columns = images.grid.shape_dhw[1:]
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in images.header:
            header[keyword] = images.header[keyword]
    header.LossyImageCompression = images.text("LossyImageCompression") or "00"
    return header


def _measures(images: SourceImages) -> dict[str, Any]:
    normal = np.cross(images.orientation_lps[:3], images.orientation_lps[3:])
    first, last = images.slices[0].position_lps_mm, images.slices[-1].position_lps_mm
    steps = max(len(images.slices) - 1, 1)
    between_mm = float(normal @ (last - first)) / steps or float(images.grid.spacing_dhw_mm[0])
    return {
        "PixelSpacing": _decimals(np.array(images.spacing_hw_mm)),
        "SliceThickness": _decimals(np.array([between_mm]))[0],
        "SpacingBetweenSlices": _decimals(np.array([between_mm]))[0],
    }


def _decimals(values: NDArray[np.float64]) -> list[Any]:
    """Return numbers as decimal strings of at most 16 characters, the limit of DICOM."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(value), auto_format=True) for value in values]


write_dicom_seg = partial(write_dicom_masks, dicom_seg)
"""Write masks as a DICOM Segmentation; see `write_dicom_masks`. OutputError also without highdicom."""
