import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from clickvol.errors import BadGeometryError, OutputError, UnreadableVolumeError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io import formats
from clickvol.io.formats import check_output_grid, check_output_path, read_volume, write_mask, write_volume
from clickvol.io.itk import files as itk_files
from clickvol.io.nifti import files as nifti
from clickvol.io.volume import Mask

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_importing_it_loads_no_reader():
    code = (
        "import sys, clickvol.io.formats as f;"
        "print([m for m in ('nibabel', 'SimpleITK', 'pydicom', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def itk_index_of(path: Path, lps: tuple[float, float, float]) -> list[float]:
    image = sitk.ReadImage(str(path))
    return list(image.TransformPhysicalPointToContinuousIndex(lps))


@pytest.fixture
def dicom_folder(write_series):
    def write(grid: VolumeGrid) -> Path:
        affine_lps = np.diag([-1.0, -1, 1, 1]) @ grid.affine_ijk_ras_mm
        spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
        cosines = affine_lps[:3, :3] / spacing
        return write_series(
            ImageOrientationPatient=[f"{v:.12f}" for v in cosines[:, :2].T.ravel()],
            PixelSpacing=[spacing[1], spacing[0]],
            per_slice=lambda k: {
                "ImagePositionPatient": [f"{v:.10f}" for v in affine_lps[:3, 3] + k * affine_lps[:3, 2]]
            },
        )

    return write


@pytest.mark.parametrize("mask_suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("scan_suffix", [".nii", ".nii.gz", ".nrrd", ".mha", "dicom"])
def test_any_scan_and_any_mask_agree_in_the_world(
    tmp_path, grid, scan_array, dicom_folder, scan_suffix, mask_suffix
):
    scan = tmp_path / f"scan{scan_suffix}"
    if scan_suffix == "dicom":
        scan = dicom_folder(grid)
    else:
        write_volume(scan_array, grid, scan)
    volume = read_volume(scan)
    # One voxel, found again by its place in the patient in what was written.
    array = np.zeros(volume.array.shape, dtype=np.uint8)
    array[2, 1, 4] = 1
    place = volume.grid.to_world(VoxelPoint(2, 1, 4))
    out = tmp_path / f"mask{mask_suffix}"
    write_mask(Mask(array, volume.grid), out)

    back = read_volume(out)
    np.testing.assert_allclose(back.grid.affine_ras_mm, volume.grid.affine_ras_mm, atol=1e-4)
    np.testing.assert_array_equal(back.array, array)
    assert back.array.dtype == np.uint8
    itk = np.array(itk_index_of(out, place.to_lps()))
    np.testing.assert_allclose(itk, [4, 1, 2], atol=1e-3)
    if scan_suffix != "dicom":
        # ITK finds the voxel of the scan at the same index, or the two formats disagree.
        np.testing.assert_allclose(itk_index_of(scan, place.to_lps()), itk, atol=1e-3)
        expected = grid.to_world(VoxelPoint(2, 1, 4)).as_array()
        np.testing.assert_allclose(place.as_array(), expected, atol=1e-4)
    if mask_suffix.startswith(".nii"):
        ras = nib.load(out).affine @ [4, 1, 2, 1]
        np.testing.assert_allclose(ras[:3], place.as_array(), atol=1e-4)


def test_upper_case_suffixes_are_understood(tmp_path, plain_grid, scan_array):
    write_volume(scan_array, plain_grid, tmp_path / "A.NII.GZ")
    write_volume(scan_array, plain_grid, tmp_path / "A.MHA")
    for name in ("A.NII.GZ", "A.MHA"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, scan_array)


def test_probabilities_keep_float32(tmp_path, plain_grid):
    array = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
    for suffix in formats.WRITABLE_SUFFIXES:
        write_volume(array, plain_grid, tmp_path / f"p{suffix}")
        back = read_volume(tmp_path / f"p{suffix}")
        assert back.array.dtype == np.float32
        np.testing.assert_array_equal(back.array, array)


def test_other_byte_order_and_strides_are_written_well(tmp_path, plain_grid, scan_array):
    array = np.asfortranarray(scan_array.astype(">i2"))
    for suffix in (".nii.gz", ".nrrd"):
        write_volume(array, plain_grid, tmp_path / f"p{suffix}")
        np.testing.assert_array_equal(read_volume(tmp_path / f"p{suffix}").array, scan_array)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_a_crash_in_the_middle_leaves_nothing(tmp_path, plain_grid, scan_array, monkeypatch, suffix, failure):
    def crash(array, grid, path, **options):
        path.write_bytes(b"half a file")
        raise failure

    monkeypatch.setattr(nifti, "write_nifti", crash)
    monkeypatch.setattr(itk_files, "write_itk", crash)
    expected = KeyboardInterrupt if failure is KeyboardInterrupt else OutputError
    mask = Mask((scan_array > 0).astype(np.uint8), plain_grid)
    with pytest.raises(expected):
        write_mask(mask, tmp_path / f"m{suffix}")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"m{suffix}").write_bytes(b"older")
    with pytest.raises(expected):
        write_mask(mask, tmp_path / f"m{suffix}")
    assert (tmp_path / f"m{suffix}").read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [tmp_path / f"m{suffix}"]


def test_arrays_that_do_not_fit_are_refused(tmp_path, plain_grid, scan_array):
    with pytest.raises(OutputError, match=r"shape \(3, 5, 6\), but its grid \(4, 5, 6\)"):
        write_volume(scan_array[:3], plain_grid, tmp_path / "m.nii")
    with pytest.raises(OutputError, match="cannot write complex64"):
        write_volume(scan_array.astype(np.complex64), plain_grid, tmp_path / "m.nii")


def test_inputs_that_are_no_scan_say_what_to_do(tmp_path, write_series, make_dataset, scan_array):
    for name, content, message in [
        ("missing.nii.gz", None, "does not exist"),
        ("scan.png", b"\x89PNG", r"supported format; .*\.nii\.gz, \.nii, \.nii\.zst, \.nrrd, \.mha, \.nhdr"),
        ("scan", b"text", "no suffix of a supported format"),
        ("scan.dcm", b"anything", "give the folder that holds its series"),
        ("text.nii.gz", b"hello\n" * 99, "not a NIfTI image"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableVolumeError, match=message) as caught:
            read_volume(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnreadableVolumeError, match="path of the scan is empty"):
        read_volume("")
    make_dataset(scan_array[0], 0).save_as(tmp_path / "IM0001")
    with pytest.raises(UnreadableVolumeError, match="single DICOM file; give the folder"):
        read_volume(str(tmp_path / "IM0001"))


def test_choices_that_do_not_apply_are_said(tmp_path, plain_grid, scan_array, write_series):
    write_volume(scan_array, plain_grid, tmp_path / "a.nii")
    with pytest.raises(UnreadableVolumeError, match="leave out --series"):
        read_volume(tmp_path / "a.nii", series="5")
    with pytest.raises(UnreadableVolumeError, match="leave out --volume 1"):
        read_volume(write_series(), volume_index=1)


def test_output_paths_are_checked_before_work(tmp_path, plain_grid, scan_array, monkeypatch):
    scan = tmp_path / "scan.nii.gz"
    write_volume(scan_array, plain_grid, scan)
    (tmp_path / "link.nii.gz").symlink_to(scan)
    os.link(scan, tmp_path / "hard.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    monkeypatch.chdir(tmp_path)
    for path, message in [
        ("mask.png", r"supported suffixes are \.nii\.gz, \.nii, \.nii\.zst, \.nrrd, \.mha, \.nhdr"),
        ("mask", "supported suffixes"),
        (".nii.gz", "supported suffixes"),
        ("mask.hdr", "supported suffixes"),
        ("a" * 300 + ".nii", "cannot be the name of a file"),
        ("a\0b.nii", "cannot be the name of a file"),
        ("nowhere/mask.nii.gz", "nowhere does not exist"),
        ("folder.nii", "is a folder"),
        (tmp_path, "is a folder"),
        ("scan.nii.gz", "is the scan itself"),
        ("./folder.nii/../scan.nii.gz", "is the scan itself"),
        ("link.nii.gz", "is the scan itself"),
        ("hard.nii.gz", "is the scan itself"),
    ]:
        with pytest.raises(OutputError, match=message) as caught:
            check_output_path(path, scan)
        assert "\n" not in str(caught.value)
    assert check_output_path("mask.nii.gz", scan) == Path("mask.nii.gz")
    assert check_output_path(tmp_path / "mask.mha", tmp_path) == tmp_path / "mask.mha"
    assert check_output_path("scan.nii.gz") == Path("scan.nii.gz")


def test_a_folder_that_is_not_writable_is_said(tmp_path, monkeypatch):
    # The superuser may write anywhere, so the answer of the system is given here.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_output_path(tmp_path / "mask.nii.gz")


def test_bad_grids_are_bad_geometry_in_every_format(tmp_path, plain_grid, scan_array):
    write_volume(scan_array, plain_grid, tmp_path / "a.mha")
    raw = (tmp_path / "a.mha").read_bytes()
    assert b"ElementSpacing = 0.69999999999999996" in raw or b"ElementSpacing = 0.7" in raw
    (tmp_path / "a.mha").write_bytes(raw.replace(b"ElementSpacing = 0.", b"ElementSpacing = -0."))
    with pytest.raises(BadGeometryError, match="above zero"):
        read_volume(tmp_path / "a.mha")


@pytest.mark.parametrize("kind", ["Sarcoma_CT", "Sarcoma_MR", "Sarcoma_PET"])
def test_a_real_patient_gets_a_mask_on_its_own_grid(tmp_path, kind):
    scan = DATA / kind / "imagesTr" / "sts_048.nii.gz"
    if not scan.exists():
        pytest.skip(f"the patients are not here: {scan}")
    truth = DATA / kind / "labelsTr" / "sts_048.nii.gz"
    volume, label = read_volume(scan), read_volume(truth)
    image = nib.load(scan)
    assert volume.array.dtype == (np.float32 if kind == "Sarcoma_PET" else np.int16)
    np.testing.assert_allclose(volume.array, image.get_fdata().T, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(volume.grid.affine_ijk_ras_mm, image.affine)
    write_mask(Mask(label.array.astype(np.uint8), volume.grid), tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(written.affine, image.affine)
    for name in ("pixdim", "sform_code", "qform_code", "xyzt_units", "srow_x", "quatern_b"):
        assert (
            written.header[name].tolist()[:4] == image.header[name].tolist()[:4]
            if (name == "pixdim")
            else written.header[name].tolist() == image.header[name].tolist()
        )
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, label.array)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz"])
def test_a_place_that_a_format_cannot_hold_is_refused_before_any_work(tmp_path, suffix):
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = [900_000.09, 0, 0]  # single precision has 0.06 mm there
    grid = VolumeGrid.from_ijk((4, 4, 4), affine)
    path = tmp_path / f"a{suffix}"
    if suffix == ".mgz":
        with pytest.raises(OutputError, match=r"a\.mgz cannot hold the place"):
            check_output_grid(path, grid)
    else:
        check_output_grid(path, grid)
        write_volume(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), grid, path)
        assert read_volume(path).grid.corner_distance_mm(grid) < 1e-6  # as NIfTI-2
