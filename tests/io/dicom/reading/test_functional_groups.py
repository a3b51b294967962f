import numpy as np
import pytest
from pydicom.dataset import Dataset

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.headers import find_images
from clickvol.io.dicom.reading.slices import slices_of
from clickvol.io.formats import read_volume

# As Philips scanners write it: a private sequence that repeats public attributes with another meaning.
PRIVATE = {
    "ImagePositionPatient": [-100.4, -50.25, 99],
    "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
    "PixelSpacing": [9, 9],
    "SliceThickness": 77,
    "RescaleSlope": 4.2,
    "RescaleIntercept": 17,
}


def item(**attributes):
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def frames_of(dataset, folder):
    dataset.save_as(folder / "enhanced", enforce_file_format=True)
    (file,) = find_images(folder).files
    return slices_of(file)


@pytest.mark.parametrize("where", ["shared", "per frame", "both"])
@pytest.mark.parametrize("tag", [0x2005140F, 0x200110FE, 0x52009999])
def test_private_sequences_place_nothing(tmp_path, enhanced_ct, where, tag):
    groups = []
    if where != "per frame":
        groups += enhanced_ct.SharedFunctionalGroupsSequence
    if where != "shared":
        groups += enhanced_ct.PerFrameFunctionalGroupsSequence
    for group in groups:
        group.add_new(tag, "SQ", [item(**PRIVATE)])
    frames = frames_of(enhanced_ct, tmp_path)
    assert [f.position_lps_mm.tolist() for f in frames] == [[-100, -50, 20 - 3 * n] for n in range(4)]
    assert {(f.slope, f.intercept, f.spacing_hw_mm) for f in frames} == {(2, -1000, (0.8, 0.5))}
    assert {f.thickness_mm for f in frames} == {3}
    assert {tuple(f.orientation_lps) for f in frames} == {(1, 0, 0, 0, 1, 0)}


def test_an_attribute_of_another_macro_does_not_count(tmp_path, enhanced_ct):
    for frame in enhanced_ct.PerFrameFunctionalGroupsSequence:
        frame.FrameAnatomySequence = [item(ImagePositionPatient=[0, 0, 0], RescaleSlope=5, PixelSpacing=[3, 3])]
    frames = frames_of(enhanced_ct, tmp_path)
    assert frames[1].position_lps_mm.tolist() == [-100, -50, 17]
    assert (frames[0].slope, frames[0].spacing_hw_mm) == (2, (0.8, 0.5))


def test_a_frame_counts_before_what_is_shared_and_that_before_the_file(tmp_path, enhanced_ct):
    enhanced_ct.PixelSpacing = [7, 7]
    own = enhanced_ct.PerFrameFunctionalGroupsSequence
    own[0].PixelValueTransformationSequence = [item(RescaleSlope=3, RescaleIntercept=0)]
    own[1].PixelValueTransformationSequence = [item(RescaleSlope=4)]  # its intercept is the shared one
    frames = frames_of(enhanced_ct, tmp_path)
    assert [(f.slope, f.intercept) for f in frames] == [(3, 0), (4, -1000), (2, -1000), (2, -1000)]
    assert {f.spacing_hw_mm for f in frames} == {(0.8, 0.5)}


def test_the_scan_lies_where_plane_position_says(tmp_path, enhanced_ct, stored_pixels):
    for frame in enhanced_ct.PerFrameFunctionalGroupsSequence:
        frame.add_new(0x2005140F, "SQ", [item(**PRIVATE)])
    enhanced_ct.save_as(tmp_path / "enhanced", enforce_file_format=True)
    volume = read_volume(tmp_path)
    np.testing.assert_allclose(volume.grid.affine_ijk_ras_mm[:3, 3], [100, 50, 11])
    np.testing.assert_array_equal(volume.array, stored_pixels[::-1] * 2.0 - 1000)


def test_groups_that_are_no_sequence_are_refused_in_a_line(tmp_path, enhanced_ct):
    del enhanced_ct.PerFrameFunctionalGroupsSequence
    enhanced_ct.add_new(0x52009230, "LO", "nonsense")
    with pytest.raises(DicomSeriesError, match="does not say where each frame lies"):
        frames_of(enhanced_ct, tmp_path)
