"""All objects to one file, format by format."""

import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as Sitk

from clickvol.errors import OutputError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.export import check_export, export_masks
from clickvol.io.formats import read_volume
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask, Volume
from reference.dicom_series import write_series


@pytest.fixture
def volume(tmp_path):
    return read_volume(write_series(tmp_path / "ct"))


def masks_on(volume):
    """Return a large object and a small one inside it."""
    large, small = (np.zeros(volume.array.shape, np.uint8) for _ in range(2))
    large[1:4, 1:6, 1:5] = 1
    small[2, 3, 2:4] = 1
    return [
        LabelledMask(name="organ", mask=Mask(large, volume.grid)),
        LabelledMask(name="tumour", mask=Mask(small, volume.grid)),
    ]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_nifti_is_a_label_map_with_the_smaller_object_on_top(volume, tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    export_masks(masks_on(volume), volume, path, file_format="nifti")
    image = nibabel.load(path)
    stored = np.asarray(image.dataobj).transpose()
    assert stored.dtype == np.uint8
    assert (stored == 2).sum() == 2
    assert (stored == 1).sum() == 3 * 5 * 4 - 2
    assert stored[2, 3, 3] == 2
    np.testing.assert_allclose(image.affine, volume.grid.affine_ijk_ras_mm, atol=1e-5)
    # Whichever comes first.
    export_masks(masks_on(volume)[::-1], volume, path, file_format="nifti")
    assert (np.asarray(nibabel.load(path).dataobj) == 1).sum() == 2


def test_nrrd(volume, tmp_path):
    export_masks(masks_on(volume), volume, tmp_path / "m.nrrd", file_format="nrrd")
    stored = Sitk.GetArrayFromImage(Sitk.ReadImage(str(tmp_path / "m.nrrd")))
    assert [(stored == n).sum() for n in (1, 2)] == [58, 2]


@pytest.mark.parametrize("file_format", ["dicom-seg", "rtstruct"])
def test_the_dicom_formats_keep_overlapping_objects_apart(volume, tmp_path, file_format):
    path = tmp_path / "m.dcm"
    export_masks(masks_on(volume), volume, path, file_format=file_format)
    result = read_mask_file(path, volume.grid)
    assert [m.name for m in result] == ["organ", "tumour"]
    assert [m.mask.num_voxels for m in result] == [60, 2]
    assert pydicom.dcmread(path).PatientID == "PID-4711"
    export_masks(masks_on(volume), volume, path, file_format=file_format, deidentify=True)
    assert pydicom.dcmread(path).PatientID == ""


@pytest.mark.parametrize("file_format", ["dicom-seg", "rtstruct"])
def test_a_zip_as_the_source(tmp_path, file_format):
    folder = write_series(tmp_path / "ct", "oblique")
    volume = read_volume(shutil.make_archive(str(tmp_path / "scan"), "zip", folder))
    export_masks(masks_on(volume), volume, tmp_path / "m.dcm", file_format=file_format)
    result = read_mask_file(tmp_path / "m.dcm", volume.grid)
    assert [m.mask.num_voxels for m in result] == [60, 2]


@pytest.mark.parametrize("file_format", ["dicom-seg", "rtstruct"])
def test_one_series_of_several(tmp_path, file_format):
    folder = write_series(tmp_path / "both" / "a")
    write_series(tmp_path / "both" / "b", SeriesInstanceUID="1.2.999.40", SeriesNumber=6)
    write_series(tmp_path / "both" / "c", "sagittal", SeriesInstanceUID="1.2.999.41", SeriesNumber=7)
    both = folder.parent
    volume = read_volume(both, series="1.2.999.40")
    path = tmp_path / "m.dcm"
    for series in ("1.2.999.40", "6"):
        export_masks(masks_on(volume), volume, path, file_format=file_format, series=series)
        assert b"1.2.999.40" in path.read_bytes()
    # Two series lie on this grid, one on the other. The scan knows its own; a copy of its grid does not.
    export_masks(masks_on(volume), volume, path, file_format=file_format)
    assert b"1.2.999.40" in path.read_bytes()
    copy = replace(volume, grid=replace(volume.grid, file_facts=None))
    with pytest.raises(OutputError, match="2 series that the mask could lie on"):
        export_masks(masks_on(copy), copy, path, file_format=file_format)
    volume = read_volume(both, series="7")
    export_masks(masks_on(volume), volume, path, file_format=file_format)
    assert b"1.2.999.41" in path.read_bytes()


def test_what_cannot_be_written_is_told_before(tmp_path, volume, monkeypatch):
    for path, source, file_format, said in (
        (tmp_path / "m.nii.gz", volume.source, "dicom-seg", r"supported suffixes are \.dcm"),
        (tmp_path / "m.dcm", volume.source, "nifti", r"supported suffixes are \.nii\.gz, \.nii"),
        (tmp_path / "m.dcm", "scan.nii.gz", "rtstruct", "is not a DICOM series"),
        (tmp_path / "m.dcm", "", "dicom-seg", "the scan is not a DICOM series"),
        (tmp_path / "no" / "m.dcm", volume.source, "dicom-seg", "does not exist"),
    ):
        with pytest.raises(OutputError, match=said) as caught:
            check_export(path, source, file_format)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    check_export(tmp_path / "m.dcm", volume.source, "rtstruct")
    with pytest.raises(OutputError, match=r'pip install "clickvol\[dicom\]"'):
        check_export(tmp_path / "m.dcm", volume.source, "dicom-seg")


def test_a_mask_of_another_grid_is_refused(tmp_path, volume):
    affine = volume.grid.affine_ras_mm.copy()
    affine[0, 3] += 5
    moved = Mask(np.ones(volume.array.shape, np.uint8), VolumeGrid(volume.array.shape, affine))
    with pytest.raises(OutputError, match="'a' does not lie on the grid"):
        export_masks([LabelledMask(name="a", mask=moved)], volume, tmp_path / "m.nii.gz",
                     file_format="nifti")  # fmt: skip


def test_a_failed_export_leaves_the_old_file(tmp_path, volume, monkeypatch):
    path = tmp_path / "m.dcm"
    path.write_bytes(b"old")

    def full(*_words, **_known):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.dataset.Dataset, "save_as", full)
    for file_format in ("dicom-seg", "rtstruct"):
        with pytest.raises(OutputError, match="No space left on device"):
            export_masks(masks_on(volume), volume, path, file_format=file_format)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["m.dcm"]


def test_a_source_that_has_gone(tmp_path, volume):
    copy = replace(volume.grid, file_facts=None)
    gone = Volume(volume.array, copy, source=str(tmp_path / "gone.zip"))
    with pytest.raises(Exception, match="gone") as caught:
        export_masks(masks_on(gone), gone, tmp_path / "m.dcm", file_format="rtstruct")
    assert type(caught.value).__module__ == "clickvol.errors"
