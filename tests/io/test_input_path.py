from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from clickvol.cli.app import main
from clickvol.errors import ClickvolError, OutputError, UnreadableVolumeError
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.dicom.reading.search import _last_part
from clickvol.io.dicom.reading.series import list_series
from clickvol.io.formats import check_output_path, read_volume
from clickvol.io.input_path import kind_of_path, suffix_of, windows_forbids
from clickvol.io.nifti.files import nifti_files


def test_what_lies_at_a_path(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    kinds = [kind_of_path(tmp_path / name) for name in ("", "file", "link", "none")]
    assert kinds == ["folder", "file", "file", "missing"]


@pytest.mark.parametrize("name", ["a" * 5000 + ".nii.gz", "b" * 300, "null\0byte.nii", "x/" * 3000])
@pytest.mark.parametrize("read", [read_volume, read_mask_file, list_series])
def test_a_path_that_cannot_be_is_refused_in_a_short_line(tmp_path, name, read):
    with pytest.raises(ClickvolError) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 6000


def test_a_closed_folder_is_named(monkeypatch):
    def closed(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", closed)  # root, as whom tests may run, sees every file
    with pytest.raises(UnreadableVolumeError, match="Permission denied"):
        read_volume("scan.nii.gz")


@pytest.mark.parametrize(
    "name", ["mask.nii.gz", "Müller.nii", "console.nii", "com10.nii", "a.con", ".hidden", "co m1"]
)
def test_windows_has_these_names(name):
    assert not windows_forbids(name)


@pytest.mark.parametrize(
    "name",
    [
        "mask:1.nii",
        "CON",
        "con.nii.gz",
        "Aux.nii",
        "LPT1.nrrd",
        "a?.nii",
        "a*.nii",
        "a<b.nii",
        'a"b',
        "mask.nii ",
        "a.",
    ],
)
def test_windows_has_no_such_names_and_nothing_is_written_elsewhere(tmp_path, monkeypatch, name):
    assert windows_forbids(name)
    monkeypatch.setattr("clickvol.io.formats._ON_WINDOWS", True)
    with pytest.raises(OutputError, match="cannot be the name of a file on Windows"):
        check_output_path(tmp_path / name)


@pytest.mark.parametrize("kind", [PureWindowsPath, PurePosixPath])
@pytest.mark.parametrize(
    ("path", "suffix"),
    [
        ("C:\\Scans\\SCAN.NII.GZ", ".nii.gz"),
        ("\\\\server\\share\\a.b\\scan.Nrrd", ".nrrd"),
        ("C:/Scans/scan.nii", ".nii"),
        ("D:scan.mha", ".mha"),
        ("C:\\scan.nii.gz\\scan", None),
    ],
)
def test_a_suffix_is_that_of_the_last_part(kind, path, suffix):
    assert suffix_of(kind(path).name, (".nii.gz", ".nii", ".nrrd", ".mha")) == suffix


@pytest.mark.parametrize("name", ["a\\b\\IM1", "C:\\x\\IM1", "..\\..\\IM1", "//server/share/IM1"])
def test_the_last_part_of_a_name_in_a_zip(name):
    assert _last_part(name) == "IM1"


@pytest.mark.parametrize("name", ["CON:", "a:b", "x|y", "..", ". ."])
def test_a_name_in_a_zip_is_one_that_every_system_has(name):
    assert _last_part(name) not in ("", ".", "..")
    assert not windows_forbids(_last_part(name))


def test_capitals_alone_make_no_second_output(tmp_path, capsys):
    (tmp_path / "scan.nii").write_bytes(b"not looked at")
    outputs = ["-o", f"{tmp_path}/Mask.nii.gz", "--probability", f"{tmp_path}/mask.nii.gz"]
    assert main(["segment", f"{tmp_path}/scan.nii", "--click", "1,1,1", *outputs]) != 0
    assert "is named for two outputs" in capsys.readouterr().err


def test_the_partner_of_a_pair_is_the_one_spelled_alike(tmp_path):
    for name in ("scan.hdr", "scan.img", "SCAN.HDR", "SCAN.IMG"):
        (tmp_path / name).touch()
    assert nifti_files(tmp_path / "scan.hdr") == (tmp_path / "scan.hdr", tmp_path / "scan.img")
    assert nifti_files(tmp_path / "SCAN.IMG") == (tmp_path / "SCAN.HDR", tmp_path / "SCAN.IMG")
    (tmp_path / "scan.img").unlink()
    assert nifti_files(tmp_path / "scan.hdr")[1].name == "SCAN.IMG"  # as where names have no capitals
