"""DICOM files as other programs write, read and judge them: Debian's dcmtk, plastimatch and dicom3tools."""

import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from clickvol.cli.app import main
from clickvol.errors import OutputError
from clickvol.io.dicom.parametric_map import write_parametric_map
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.dicom.seg import write_dicom_seg
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask
from reference.dicom_files import make_slice
from reference.dicom_series import PATIENT, SERIES, write_enhanced, write_series

KINDS = [*SERIES, "enhanced"]


def run(program, *arguments):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace")


def series_of(kind, folder):
    return write_enhanced(folder) if kind == "enhanced" else write_series(folder, kind)


def probability_on(volume):
    probability = np.random.default_rng(0).random(volume.array.shape).astype(np.float32)
    probability[2] = 0
    return probability


def ball_on(volume):
    """Return a mask with a hole; one slice is empty."""
    d, h, w = np.ogrid[: volume.array.shape[0], : volume.array.shape[1], : volume.array.shape[2]]
    squared = (h - 3) ** 2 + (w - 3) ** 2 + 0 * d
    array = ((squared < 9) & (squared > 0) & (d != 2)).astype(np.uint8)
    return LabelledMask(name="tumour", mask=Mask(array, volume.grid))


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_of_a_parametric_map_lies_on_its_image(tmp_path, kind):
    folder = series_of(kind, tmp_path / "ct")
    volume = read_dicom(folder)
    probability = probability_on(volume)
    write_parametric_map(probability, volume.grid, folder, tmp_path / "p.dcm", model_id="a-model")
    image = highdicom.imread(tmp_path / "p.dcm")
    assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"
    assert (image.PatientID, image.StudyInstanceUID) == (PATIENT["PatientID"], PATIENT["StudyInstanceUID"])
    assert image.ManufacturerModelName == "clickvol a-model"
    values = image.get_frames(apply_real_world_transform=True)
    for frame, group in zip(values, image.PerFrameFunctionalGroupsSequence, strict=True):
        position_ras = np.array(group.PlanePositionSequence[0].ImagePositionPatient) * [-1, -1, 1]
        (voxel,) = volume.grid.voxel_positions(position_ras[np.newaxis])
        np.testing.assert_allclose(voxel, [round(voxel[0]), 0, 0], atol=1e-3)
        np.testing.assert_array_equal(frame, probability[round(voxel[0])])
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        if kind == "enhanced":
            original = pydicom.dcmread(next(folder.iterdir())).PerFrameFunctionalGroupsSequence
            own = original[source.ReferencedFrameNumber - 1].PlanePositionSequence[0].ImagePositionPatient
        else:
            headers = {h.SOPInstanceUID: h for h in map(pydicom.dcmread, folder.iterdir())}
            own = headers[source.ReferencedSOPInstanceUID].ImagePositionPatient
        np.testing.assert_allclose(np.array(own, float) * [-1, -1, 1], position_ras, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deidentify", [False, True])
@pytest.mark.parametrize("what", ["SEG", "RTSTRUCT", "parametric map"])
def test_dciodvfy_finds_no_error(tmp_path, kind, deidentify, what):
    folder, path = series_of(kind, tmp_path / "ct"), tmp_path / "a.dcm"
    volume = read_dicom(folder)
    if what == "parametric map":
        write_parametric_map(probability_on(volume), volume.grid, folder, path, deidentify=deidentify)
    else:
        write = write_dicom_seg if what == "SEG" else write_rtstruct
        write([ball_on(volume)], folder, path, deidentify=deidentify)
    done = run("dciodvfy", "-new", path)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []
    if deidentify:
        assert "Müller" not in str(pydicom.dcmread(path))
        assert "PID-4711" not in str(pydicom.dcmread(path))
    dumped = run("dcmdump", "+L", path)
    assert (dumped.returncode, dumped.stderr) == (0, "")


@pytest.mark.parametrize("kind", list(SERIES))
def test_plastimatch_reads_the_series_as_we_do(tmp_path, kind):
    if kind in ("tilted", "oblique"):
        pytest.skip("plastimatch reads no tilted or oblique series")
    volume = read_dicom(write_series(tmp_path / "ct", kind))
    arguments = ["--input", tmp_path / "ct", "--output-img", tmp_path / "a.mha", "--output-type", "float"]
    assert run("plastimatch", "convert", *arguments).returncode == 0
    image = sitk.ReadImage(str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.array)
    corner = np.array(image.TransformContinuousIndexToPhysicalPoint([5.0, 6.0, 4.0])) * [-1, -1, 1]
    np.testing.assert_allclose(volume.grid.voxel_positions(corner[np.newaxis]), [[4, 6, 5]], atol=1e-3)


def test_plastimatch_draws_the_contours_as_the_mask(tmp_path):
    folder = write_series(tmp_path / "ct", shape_dhw=(5, 7, 8))
    volume = read_dicom(folder)
    labelled = ball_on(volume)
    write_rtstruct([labelled], folder, tmp_path / "a.dcm")
    done = run(
        "plastimatch", "convert", "--input", tmp_path / "a.dcm", "--referenced-ct", folder,
        "--output-labelmap", tmp_path / "a.mha",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.mha"))) > 0
    # It counts voxels on a contour in another way, one row or column of them at most.
    assert (drawn & (labelled.mask.array > 0)).sum() > 0.9 * labelled.mask.num_voxels
    assert not drawn[2].any()


SYNTAXES = {
    "implicit": ("dcmconv", "+ti"),
    "big endian": ("dcmconv", "+tb"),
    "deflated": ("dcmconv", "+td"),
    "run length": ("dcmcrle",),
    "JPEG lossless": ("dcmcjpeg", "+e1"),
    "JPEG lossless 14": ("dcmcjpeg", "+el"),
    "JPEG-LS": ("dcmcjpls",),
}


@pytest.mark.parametrize("syntax", list(SYNTAXES))
@pytest.mark.parametrize(
    ("dtype", "bits", "photometric"),
    [
        ("uint16", 16, "MONOCHROME2"),
        ("uint16", 12, "MONOCHROME1"),
        ("int16", 16, "MONOCHROME1"),
        ("int16", 12, "MONOCHROME2"),
        ("uint8", 8, "MONOCHROME1"),
    ],
)
def test_what_dcmtk_converts_is_read_the_same(tmp_path, syntax, dtype, bits, photometric):
    low = -(2 ** (bits - 1)) if dtype == "int16" else 0
    pixels = np.random.default_rng(bits).integers(low, low + 2**bits, (2, 16, 20)).astype(dtype)
    program, *options = SYNTAXES[syntax]
    folder = tmp_path / "ct"
    folder.mkdir()
    for index, plane in enumerate(pixels):
        tags = {"BitsStored": bits, "HighBit": bits - 1, "PhotometricInterpretation": photometric}
        make_slice(plane, index, **tags).save_as(tmp_path / "plain", enforce_file_format=True)
        done = run(program, *options, tmp_path / "plain", folder / f"IM{index}")
        assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read_dicom(folder).array, pixels.astype(int) - 1024)


def test_probabilities_as_dicom_by_the_command(tmp_path, capsys):
    folder = write_series(tmp_path / "ct", shape_dhw=(8, 40, 40))
    arguments = ["segment", str(folder), "--click", "20,20,4", "--quiet"]
    assert main([*arguments, "-o", f"{tmp_path}/m.dcm", "--probability", f"{tmp_path}/p.dcm"]) == 0
    volume = read_dicom(folder)
    assert main([*arguments, "-o", f"{tmp_path}/m.mgz", "--probability", f"{tmp_path}/p.nrrd"]) == 0
    expected = sitk.GetArrayFromImage(sitk.ReadImage(f"{tmp_path}/p.nrrd"))
    image = highdicom.imread(tmp_path / "p.dcm")
    heights = [
        g.PlanePositionSequence[0].ImagePositionPatient[2] for g in image.PerFrameFunctionalGroupsSequence
    ]
    order = np.argsort(np.argsort(heights))
    np.testing.assert_array_equal(image.pixel_array, expected[order])
    assert expected.shape == volume.array.shape
    capsys.readouterr()
    scan = str(tmp_path / "m.mgz")
    assert (
        main(["segment", scan, "--click", "20,20,4", "-o", f"{tmp_path}/n.nii", "--probability", "q.dcm"]) != 0
    )
    assert "is not a DICOM series" in capsys.readouterr().err


def test_a_probability_off_the_slices_is_refused(tmp_path):
    folder = write_series(tmp_path / "ct")
    other = read_dicom(write_series(tmp_path / "other", "sagittal"))
    grid = other.grid.without_file_facts()
    with pytest.raises(OutputError, match="does not lie on the slices"):
        write_parametric_map(probability_on(other), grid, folder, tmp_path / "p.dcm")
    assert not (tmp_path / "p.dcm").exists()
