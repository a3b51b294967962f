"""Masks as DICOM in again: what was written, and what other programs write."""

import highdicom.seg
import numpy as np
import pydicom
import pytest
from highdicom.seg import SegmentDescription
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes

from clickvol.errors import UnreadableVolumeError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.masks import is_dicom_mask, read_mask_file
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.dicom.rtstruct import rtstruct, write_rtstruct
from clickvol.io.dicom.seg import dicom_seg, write_dicom_seg
from clickvol.io.dicom.sources import read_source_images
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask
from reference.dicom_series import SERIES, write_enhanced, write_series

WRITERS = {"seg": write_dicom_seg, "rtstruct": write_rtstruct}


def mask_on(volume, seed=0, name="tumour", density=0.4):
    array = (np.random.default_rng(seed).random(volume.array.shape) < density).astype(np.uint8)
    return LabelledMask(name=name, mask=Mask(array, volume.grid))


@pytest.mark.parametrize("write", list(WRITERS))
@pytest.mark.parametrize("source", [write_series, write_enhanced])
@pytest.mark.parametrize("kind", list(SERIES))
def test_what_was_written_comes_back(tmp_path, kind, source, write):
    folder = source(tmp_path / "ct", kind)
    volume = read_dicom(folder)
    masks = [mask_on(volume), mask_on(volume, seed=1, name="second")]
    WRITERS[write](masks, folder, tmp_path / "mask.dcm")
    result = read_mask_file(tmp_path / "mask.dcm", volume.grid)
    assert [m.name for m in result] == ["tumour", "second"]
    for before, after in zip(masks, result, strict=True):
        np.testing.assert_array_equal(after.mask.array, before.mask.array)
        assert after.mask.grid is volume.grid


@pytest.mark.parametrize("write", list(WRITERS))
def test_empty_masks_come_back(tmp_path, write):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    nothing = LabelledMask(name="gone", mask=Mask(np.zeros((5, 7, 6), np.uint8), volume.grid))
    WRITERS[write]([nothing, mask_on(volume)], folder, tmp_path / "mask.dcm")
    gone, there = read_mask_file(tmp_path / "mask.dcm", volume.grid)
    assert (gone.mask.num_voxels, gone.name) == (0, "gone")
    np.testing.assert_array_equal(there.mask.array, mask_on(volume).mask.array)


@pytest.fixture(scope="module")
def oblique(tmp_path_factory):
    """A small oblique series: its images and its grid."""
    folder = write_series(tmp_path_factory.mktemp("ct"), "oblique", (3, 5, 6))
    return read_source_images(folder)


@given(array=arrays(np.uint8, (3, 5, 6), elements=st.integers(0, 1)))
def test_any_mask_comes_back(oblique, tmp_path_factory, array):
    path = tmp_path_factory.mktemp("any") / "mask.dcm"
    masks = [LabelledMask(name="any", mask=Mask(array, oblique.grid))]
    for made in (dicom_seg(masks, oblique), rtstruct(masks, oblique)):
        made.save_as(path, enforce_file_format=True)
        (result,) = read_mask_file(path, oblique.grid)
        np.testing.assert_array_equal(result.mask.array, array)


@pytest.fixture
def two(tmp_path):
    """A series, its volume and two masks, in a SEG and an RTSTRUCT."""
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    masks = [mask_on(volume, name="1"), mask_on(volume, seed=1, name="liver met")]
    for name, write in WRITERS.items():
        write(masks, folder, tmp_path / f"{name}.dcm")
    return tmp_path, volume, masks


@pytest.mark.parametrize("name", list(WRITERS))
def test_choosing_a_segment(two, name):
    folder, volume, masks = two
    path = folder / f"{name}.dcm"
    for segment, expected in (
        (2, masks[1]),
        ("liver met", masks[1]),
        ("2", masks[1]),
        ("1", masks[0]),
    ):
        (result,) = read_mask_file(path, volume.grid, segment=segment)
        np.testing.assert_array_equal(result.mask.array, expected.mask.array)
    with pytest.raises(UnreadableVolumeError, match=r"no object called 7.*1 '1', 2 'liver met'"):
        read_mask_file(path, volume.grid, segment=7)


def test_a_segmentation_has_a_grid_of_its_own(two):
    folder, volume, masks = two
    result = read_mask_file(folder / "seg.dcm")[0]
    np.testing.assert_allclose(result.mask.grid.affine_ras_mm, volume.grid.affine_ras_mm, atol=1e-6)
    np.testing.assert_array_equal(result.mask.array, masks[0].mask.array)


def test_the_own_grid_is_cut_to_the_planes_that_are_there(tmp_path):
    folder = write_series(tmp_path / "ct", "oblique")
    volume = read_dicom(folder)
    array = np.zeros(volume.array.shape, np.uint8)
    array[1, 2, 3] = array[2, 1, 1] = array[4, 6, 5] = 1  # the gap at 3 is filled
    write_dicom_seg([LabelledMask(name="a", mask=Mask(array, volume.grid))], folder,
                    tmp_path / "seg.dcm")  # fmt: skip
    (result,) = read_mask_file(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(result.mask.array, array[1:])
    moved = volume.grid.affine_ras_mm @ [1, 0, 0, 1]
    np.testing.assert_allclose(result.mask.grid.affine_ras_mm[:, 3], moved, atol=1e-6)


def test_contours_without_a_scan_are_refused(two):
    with pytest.raises(UnreadableVolumeError, match="give the scan"):
        read_mask_file(two[0] / "rtstruct.dcm")


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_mask_of_another_scan_is_refused(two, name):
    folder, volume, _ = two
    for shift, said in (
        ((1.4, 0, 0), "no slice|other voxels"),
        ((600, 0, 0), "beyond the scan"),
    ):
        affine = volume.grid.affine_ras_mm.copy()
        affine[2, 3] += shift[0]
        with pytest.raises(UnreadableVolumeError, match=said):
            read_mask_file(folder / f"{name}.dcm", VolumeGrid((5, 7, 6), affine))


def test_a_segmentation_of_other_voxels_is_refused(two):
    folder, volume, _ = two
    affine = volume.grid.affine_ras_mm.copy()
    affine[:3, 2] *= 2
    with pytest.raises(UnreadableVolumeError, match="other voxels"):
        read_mask_file(folder / "seg.dcm", VolumeGrid((5, 7, 3), affine))


def test_a_segmentation_across_the_slices_of_the_scan(two):
    """The grid of the scan runs along other axes, the other way round: the same voxels are found."""
    folder, volume, masks = two
    order = [2, 0, 1]
    affine = volume.grid.affine_ras_mm.copy()
    affine[:3, 3] = (affine @ [4, 0, 5, 1])[:3]  # the last d and the last w
    affine[:3, 0] *= -1
    affine[:3, 2] *= -1
    turned = masks[0].mask.array[::-1, :, ::-1].transpose(order)
    affine[:3, :3] = affine[:3, order]
    (result,) = read_mask_file(folder / "seg.dcm", VolumeGrid(turned.shape, affine), segment=1)
    np.testing.assert_array_equal(result.mask.array, turned)


def segmentation(folder, pixels, kind, **known):
    """Return a segmentation that highdicom makes by itself, on the files by position."""
    files = [pydicom.dcmread(p) for p in folder.iterdir()]
    files.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    segments = [
        SegmentDescription(number, f"s{number}", codes.SCT.Tissue, codes.SCT.Neoplasm, "MANUAL")
        for number in (1, 2)
    ]
    return highdicom.seg.Segmentation(
        files, pixels, kind, segments, "1.2.9.1", 9, "1.2.9.2", 1, "m", "m", "1", "1", **known
    )


def test_a_fractional_segmentation_counts_from_one_half(tmp_path):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    values = np.random.default_rng(0).random((5, 7, 6, 2))
    values[0, 0, 0], values[0, 0, 1] = (0.5, 0.49), (0.0, 1.0)
    made = segmentation(folder, values, "FRACTIONAL", max_fractional_value=200)
    made.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    result = read_mask_file(tmp_path / "seg.dcm", volume.grid)
    stored = np.rint(values * 200) / 200
    for index in (0, 1):
        np.testing.assert_array_equal(result[index].mask.array, stored[..., index] >= 0.5)


def test_a_label_map_segmentation(tmp_path):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    labels = np.random.default_rng(0).integers(0, 3, (5, 7, 6)).astype(np.uint8)
    made = segmentation(folder, labels, "LABELMAP")
    made.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    result = read_mask_file(tmp_path / "seg.dcm", volume.grid)
    assert [m.name for m in result] == ["s1", "s2"]
    for number, labelled in enumerate(result, start=1):
        np.testing.assert_array_equal(labelled.mask.array, labels == number)


def test_frames_in_any_order(two):
    folder, volume, masks = two
    seg = pydicom.dcmread(folder / "seg.dcm")
    items = list(seg.PerFrameFunctionalGroupsSequence)
    order = np.random.default_rng(1).permutation(len(items))
    pixels = seg.pixel_array[order]
    seg.PerFrameFunctionalGroupsSequence = [items[i] for i in order]
    bits = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    seg.PixelData = bits + b"\0" * (len(bits) % 2)
    seg.save_as(folder / "other.dcm", enforce_file_format=True)
    result = read_mask_file(folder / "other.dcm", volume.grid)
    for before, after in zip(masks, result, strict=True):
        np.testing.assert_array_equal(after.mask.array, before.mask.array)


def test_a_contour_inside_another_one_is_a_hole_and_points_enclose_nothing(two):
    folder, volume, _ = two
    rt = pydicom.dcmread(folder / "rtstruct.dcm")
    # Rows of 0.8 mm from 20, columns of 0.5 mm from -10.5, on slice 1 at z = 3.
    outer = [(-11, 19, 3), (-7.8, 19, 3), (-7.8, 23.7, 3), (-11, 23.7, 3)]
    inner = [(-9.7, 21.3, 3), (-9.3, 21.3, 3), (-9.3, 22, 3), (-9.7, 22, 3)]
    contours = []
    for kind, points in (
        ("CLOSED_PLANAR", outer), ("CLOSED_PLANAR", inner), ("POINT", [(-10.5, 20, 0)]),
    ):  # fmt: skip
        contour = pydicom.Dataset()
        contour.ContourGeometricType = kind
        contour.NumberOfContourPoints = len(points)
        contour.ContourData = [v for p in points for v in p]
        contours.append(contour)
    rt.ROIContourSequence[0].ContourSequence = contours
    rt.save_as(folder / "nested.dcm", enforce_file_format=True)
    result = read_mask_file(folder / "nested.dcm", volume.grid, segment=1)[0].mask.array
    expected = np.zeros((5, 7, 6), np.uint8)
    expected[1, :5, :6] = 1
    expected[1, 2, 2] = 0
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("seg", "SegmentSequence"),
        ("seg", "SharedFunctionalGroupsSequence"),
        ("seg", "PerFrameFunctionalGroupsSequence"),
        ("seg", "SegmentationType"),
        ("seg", "PixelData"),
        ("rtstruct", "StructureSetROISequence"),
    ],
)
def test_what_lacks_something_is_told_in_one_line(two, name, keyword):
    folder, volume, _ = two
    dataset = pydicom.dcmread(folder / f"{name}.dcm")
    delattr(dataset, keyword)
    dataset.save_as(folder / "less.dcm", enforce_file_format=True)
    with pytest.raises(UnreadableVolumeError, match=r"less\.dcm") as caught:
        read_mask_file(folder / "less.dcm", volume.grid)
    assert "\n" not in str(caught.value)


def test_a_slice_of_a_scan_is_no_mask(two):
    folder, volume, _ = two
    path = next((folder / "ct").iterdir())
    with pytest.raises(UnreadableVolumeError, match="modality CT, but a mask is"):
        read_mask_file(path, volume.grid)


def test_files_that_are_no_dicom(tmp_path, plain_grid):
    (tmp_path / "a.dcm").write_bytes(b"hello")
    with pytest.raises(UnreadableVolumeError, match="is not a DICOM file"):
        read_mask_file(tmp_path / "a.dcm", plain_grid)
    with pytest.raises(UnreadableVolumeError, match="does not exist"):
        read_mask_file(tmp_path / "b.dcm", plain_grid)
    assert not is_dicom_mask(tmp_path / "a.dcm")
    assert not is_dicom_mask(tmp_path)


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.203", "1.2.840.10008.1.2.4.299"]
)
def test_pixels_that_nothing_decodes_are_refused_in_a_line(tmp_path, syntax):
    path, volume = tmp_path / "mask.dcm", read_dicom(write_series(tmp_path / "ct"))
    write_dicom_seg([mask_on(volume)], tmp_path / "ct", path)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"\1\2\3\4"] * int(dataset.NumberOfFrames))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = known = syntax.replace("299", "203")
    dataset.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)
    # pydicom writes no syntax that it does not know.
    path.write_bytes(path.read_bytes().replace(known.encode(), syntax.encode()))
    with pytest.raises(UnreadableVolumeError, match=r"compressed as .* nothing installed here decodes"):
        read_mask_file(path, volume.grid)
