import gzip

import nibabel
import numpy as np
import pytest
import zstandard

from clickvol.errors import UnreadableVolumeError
from clickvol.io.compression import compression_of
from clickvol.io.formats import read_volume, write_volume


@pytest.fixture
def plain(tmp_path, scan_array, plain_grid):
    write_volume(scan_array, plain_grid, tmp_path / "scan.nii")
    return (tmp_path / "scan.nii").read_bytes()


def test_zstd_is_read_and_written(tmp_path, scan_array, grid):
    write_volume(scan_array, grid, tmp_path / "a.nii.zst")
    assert compression_of(tmp_path / "a.nii.zst") == "zstd"
    content = zstandard.ZstdDecompressor().stream_reader((tmp_path / "a.nii.zst").read_bytes()).read()
    np.testing.assert_array_equal(nibabel.Nifti1Image.from_bytes(content).get_fdata().T, scan_array)
    volume = read_volume(tmp_path / "a.nii.zst")
    assert volume.grid.same_place(grid)
    np.testing.assert_array_equal(volume.array, scan_array)


def test_several_frames_are_one_stream(tmp_path, plain, scan_array):
    packed = b"".join(zstandard.compress(part) for part in (plain[:400], plain[400:]))
    (tmp_path / "a.nii.zst").write_bytes(packed)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.zst").array, scan_array)


@pytest.mark.parametrize("keep", [30, 100, 200])
def test_a_cut_off_zstd_is_refused(tmp_path, plain, keep):
    (tmp_path / "a.nii.zst").write_bytes(zstandard.compress(plain)[:keep])
    with pytest.raises(UnreadableVolumeError):
        read_volume(tmp_path / "a.nii.zst")


def test_bytes_behind_a_whole_gzip_stream_are_said(tmp_path, plain, scan_array):
    for tail, said in ((b"", False), (b"\0" * 512, False), (b"trailer", True)):
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(plain) + tail)
        volume = read_volume(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(volume.array, scan_array)
        assert any("bytes behind the compressed scan" in note for note in volume.notes) is said


def test_a_wrong_checksum_is_still_refused(tmp_path, plain):
    packed = bytearray(gzip.compress(plain))
    packed[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(bytes(packed))
    with pytest.raises(UnreadableVolumeError, match="truncated or damaged"):
        read_volume(tmp_path / "a.nii.gz")
