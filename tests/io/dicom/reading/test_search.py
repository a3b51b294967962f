import os
import zipfile

import numpy as np
import pytest

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.headers import find_images
from clickvol.io.dicom.reading.search import dicom_candidates, is_named_as_slice
from clickvol.io.formats import read_volume


@pytest.fixture
def study(write_series, tmp_path):
    """A folder with a localizer at the top and a series of four slices below."""
    (tmp_path / "study").mkdir()
    write_series("study/series")
    write_series("study", skip=(1, 2, 3), SeriesInstanceUID="1.2.8", SeriesNumber=1)
    return tmp_path / "study"


def test_what_lies_at_the_top_hides_nothing_below(study):
    assert len(find_images(study).files) == 5
    with pytest.raises(
        DicomSeriesError, match=r"holds 2 series.*1 slices, UID 1\.2\.8.*4 slices, UID 1\.2\.3\.4"
    ):
        read_volume(study)
    assert read_volume(study, series="1.2.3.4").grid.shape_dhw == (4, 5, 6)


def test_a_zip_holds_what_its_folder_holds(study):
    archive = study.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(study.rglob("*")):
            file.write(path, path.relative_to(study.parent))
    with pytest.raises(DicomSeriesError) as of_folder:
        read_volume(study)
    with pytest.raises(DicomSeriesError) as of_archive:
        read_volume(archive)
    assert str(of_archive.value) == str(of_folder.value).replace(str(study), str(archive))


def test_linked_folders_are_searched_once(study, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    slices = sorted((study / "series").iterdir())
    for path in slices[:2]:
        path.rename(half / path.name)
    (study / "series" / "rest").symlink_to(half, target_is_directory=True)
    (half / "back").symlink_to(study, target_is_directory=True)
    assert len(find_images(study).files) == 5
    assert read_volume(study, series="5").grid.shape_dhw == (4, 5, 6)


def test_a_link_that_leads_nowhere_may_be_a_slice(study):
    (study / "series" / "notes.txt").symlink_to("nowhere")
    assert len(find_images(study).files) == 5
    (study / "series" / "IM0009.dcm").symlink_to("nowhere")
    with pytest.raises(DicomSeriesError, match=r"IM0009\.dcm is a link that leads nowhere"):
        find_images(study)


def test_a_folder_that_cannot_be_read_is_not_passed_over(study, monkeypatch):
    scandir = os.scandir

    def locked(path):
        if os.fspath(path).endswith("series"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)  # root, as whom tests may run, reads every folder
    with pytest.raises(DicomSeriesError, match=r"the folder .*series cannot be read \(Permission denied\)"):
        find_images(study)


def test_an_empty_slice_is_an_interrupted_copy(study):
    (study / "series" / "IM0099.dcm").touch()
    with pytest.raises(DicomSeriesError, match=r"IM0099\.dcm is empty"):
        find_images(study)


def test_what_was_not_opened_is_said(write_series):
    folder = write_series()
    (folder / "more.zip").write_bytes(b"PK\3\4")
    (folder / "text.dcm").write_text("no DICOM")
    (folder / "._IM1.dcm").write_text("of another operating system")
    notes = read_volume(folder).notes
    assert [note.split(" ")[0] for note in notes] == ["more.zip", "text.dcm"]
    assert "not opened" in notes[0]
    assert "passed over" in notes[1]


@pytest.mark.parametrize("cut_at", [300, 500])
def test_a_slice_that_ends_in_its_header_is_not_passed_over(write_series, cut_at):
    folder = write_series()
    path = sorted(folder.iterdir())[0]
    path.write_bytes(path.read_bytes()[:cut_at])
    with pytest.raises(DicomSeriesError, match="damaged or unreadable"):
        find_images(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("IM0007.DCM", True), ("a.ima", True), ("1.2.840.113619.7", True), ("IM0007", True), ("000012", True),
     ("readme.txt", False), ("DICOMDIR", False), ("scan.nii.gz", False)],
)  # fmt: skip
def test_names_of_slices(name, expected):
    assert is_named_as_slice(name) is expected


def test_files_of_every_start_are_candidates(tmp_path):
    for name, start in {
        "a": b"\0" * 128 + b"DICM",
        "b": b"\x08\0\x05\0",
        "c": b"\x02\0\0\0UL",
        "d": b"GIF89a",
    }.items():
        (tmp_path / name).write_bytes(start)
    names = [path.name for path in dicom_candidates(tmp_path, "").paths]
    assert names == ["a", "b", "c"]


def test_a_group_two_without_preamble_is_read(write_series, stored_pixels):
    folder = write_series()
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(read_volume(folder).array, stored_pixels.astype(int) - 1024)
