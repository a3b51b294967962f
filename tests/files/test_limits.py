import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as Sitk

from clickvol.errors import ConfigError, ScanTooLargeError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.io.formats import read_volume

NUM_BYTES = 352 + 120 * 2  # a NIfTI header and (4, 5, 6) int16


@pytest.fixture
def scan_array():
    """(4, 5, 6) int16, all values different."""
    return (np.arange(120).reshape(4, 5, 6) * 7 - 300).astype(np.int16)


@pytest.fixture(params=["scan.nii", "scan.nii.gz"])
def nifti(request, tmp_path, scan_array):
    path = tmp_path / request.param
    nibabel.save(nibabel.Nifti1Image(scan_array.T, np.eye(4)), path)
    return path


@pytest.fixture(params=["scan.nrrd", "scan.mha"])
def itk(request, tmp_path, scan_array):
    path = tmp_path / request.param
    Sitk.WriteImage(Sitk.GetImageFromArray(scan_array), path, useCompression=True)
    return path


def limits(voxels=120, num_bytes=NUM_BYTES):
    return ReadLimits(max_voxels=voxels, max_bytes_unpacked=num_bytes)


def test_limits_that_let_nothing_through_are_refused():
    for values in ({"voxels": 0}, {"num_bytes": 0}):
        with pytest.raises(ConfigError, match="let nothing be read"):
            limits(**values)


def test_the_last_allowed_number_and_the_next(nifti, scan_array):
    np.testing.assert_array_equal(read_volume(nifti, limits=limits()).array, scan_array)
    with pytest.raises(ScanTooLargeError, match="holds 120 voxels, but at most 119 are allowed"):
        read_volume(nifti, limits=limits(voxels=119))
    with pytest.raises(ScanTooLargeError, match=f"{NUM_BYTES} bytes or more, but at most 591"):
        read_volume(nifti, limits=limits(num_bytes=NUM_BYTES - 1))


def test_itk_formats_are_bounded_by_their_headers(itk, scan_array):
    np.testing.assert_array_equal(read_volume(itk, limits=limits(num_bytes=240)).array, scan_array)
    with pytest.raises(ScanTooLargeError, match="holds 120 voxels, but at most 119 are allowed"):
        read_volume(itk, limits=limits(voxels=119))
    with pytest.raises(ScanTooLargeError, match="240 bytes or more, but at most 239"):
        read_volume(itk, limits=limits(num_bytes=239))


def test_a_promise_of_fifty_gigabytes_is_refused_before_anything_is_unpacked(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((3000, 3000, 3000))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(9_000_000)))
    assert path.stat().st_size < 10_000
    with pytest.raises(UnreadableVolumeError, match="promises 54000000000 bytes"):
        read_volume(path)
    # Padded with noise, the file is large enough for the promise not to be impossible.
    with path.open("ab") as file:
        file.truncate(60_000_000)  # sparse: takes no room
    with pytest.raises(ScanTooLargeError, match="holds 27000000000 voxels"):
        read_volume(path, limits=limits(voxels=10**9, num_bytes=10**10))


def test_what_follows_the_voxels_is_bounded_while_it_is_unpacked(tmp_path, scan_array):
    plain, path = tmp_path / "scan.nii", tmp_path / "tail.nii.gz"
    nibabel.save(nibabel.Nifti1Image(scan_array.T, np.eye(4)), plain)
    path.write_bytes(gzip.compress(plain.read_bytes() + bytes(64 * 2**20)))
    assert path.stat().st_size < 100_000
    np.testing.assert_array_equal(read_volume(path).array, scan_array)
    # Found after the first piece of 4 MiB, not after all 64.
    with pytest.raises(ScanTooLargeError, match=r"unpacks to 4\d{6} bytes or more"):
        read_volume(path, limits=limits(num_bytes=1_000_000))


def detached(tmp_path, name, header):
    (tmp_path / "secret").write_bytes(np.arange(120, dtype=np.int16).tobytes())
    path = tmp_path / name
    path.write_bytes(header)
    return path


NRRD = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\n"
META = b"ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_SHORT\n"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nhdr", NRRD + b"data file: secret\n"),
        ("a.nrrd", NRRD + b"data file: secret\n"),
        ("a.nrrd", NRRD + b"datafile: secret\n\n"),
        ("a.nrrd", NRRD + b"#" + b"x" * 70_000 + b"\ndata file: secret\n\n"),
        ("a.mhd", META + b"ElementDataFile = secret\n"),
        ("a.mha", META + b"ElementDataFile = secret\n"),
        ("a.mha", META + b"Comment = ElementDataFile = LOCAL\nElementDataFile = secret\n"),
        ("a.mha", META + b"ElementDataFile = LIST\nsecret\nElementDataFile = LOCAL\n"),
        ("a.mha", META + b"Comment = " + b"x" * 70_000 + b"\nElementDataFile = secret\n"),
    ],
)
def test_no_other_file_is_read_for_a_stranger(tmp_path, name, header):
    path = detached(tmp_path, name, header)
    with pytest.raises(UnreadableVolumeError, match="does not hold its own voxels"):
        read_volume(path, limits=limits())


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nhdr", NRRD + b"data file: secret\n"),
        ("a.mhd", META + b"ElementDataFile = secret\n"),
    ],
)
def test_without_limits_they_are_read(tmp_path, name, header):
    volume = read_volume(detached(tmp_path, name, header))
    np.testing.assert_array_equal(volume.array.ravel(), np.arange(120))
