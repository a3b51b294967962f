import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.series import list_series
from clickvol.io.formats import read_volume
from reference.dicom_files import make_slice

SLICES = (np.arange(600).reshape(20, 5, 6) * 9 + 500).astype(np.uint16)
WHOLE = tuple(range(20))


def save(path, index, **tags):
    path.parent.mkdir(parents=True, exist_ok=True)
    make_slice(SLICES[index], index, **tags).save_as(path, enforce_file_format=True)


def write(folder, indices=WHOLE, **tags):
    for index in indices:
        save(folder / f"IM{index:03d}.dcm", index, **tags)
    return folder


def write_localizer(path, **tags):
    save(path, 0, **({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "InstanceNumber": 90} | tags))


def link_out(folder, target):
    """Move the second half of a series elsewhere, and link to it."""
    write(target, range(10, 20))
    (folder / "more").symlink_to(target)


def seen(path):
    """Return the shape and the notes of a scan, or why it is refused."""
    try:
        volume = read_volume(path)
    except DicomSeriesError as error:
        return str(error).replace(str(path), "SCAN")
    return volume.array.shape[0], volume.notes


def zipped(folder):
    """Return a zip of everything in a folder that a zip can hold, links followed."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for parent, _, names in os.walk(folder, followlinks=True):
            for file in (Path(parent, name) for name in names):
                archive.write(file, file.relative_to(folder))
    return path


WHAT_IS_SAID = {
    "whole": (lambda f: write(f), (20, ())),
    "in two folders": (lambda f: (write(f / "a", WHOLE[:10]), write(f / "b", WHOLE[10:])), (20, ())),
    "linked folder": (lambda f: (write(f, WHOLE[:10]), link_out(f, f.parent / "elsewhere")), (20, ())),
    "localizer above": (
        lambda f: (write(f / "below"), write_localizer(f / "TOP", SeriesInstanceUID="1.9", SeriesNumber=1)),
        "SCAN holds 2 series",
    ),
    "localizer in the series": (
        lambda f: (write(f), write_localizer(f / "L", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        (20, "Left out of the series: 1 localizer"),
    ),
    "unnamed localizer": (lambda f: (write(f), write_localizer(f / "L")), "mixed orientations"),
    "localizers alone": (
        lambda f: write(f, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        (20, ()),
    ),
    "first slices missing": (
        lambda f: write(f, WHOLE[2:]),
        (18, "numbers from 3 to 20; slices may be missing"),
    ),
    "every other slice missing": (lambda f: write(f, WHOLE[::2]), (10, "numbers from 1 to 19")),
    "inner slice missing": (lambda f: write(f, WHOLE[:7] + WHOLE[8:]), "1 slice is missing"),
    "last slices missing": (
        lambda f: write(f, WHOLE[:15], ImagesInAcquisition=20),
        (15, "says that it has 20 images, but there are 15"),
    ),
    "numbers from 0": (lambda f: [save(f / f"{i}", i, InstanceNumber=i) for i in WHOLE], (20, ())),
    "no numbers": (lambda f: write(f, InstanceNumber=None), (20, ())),
    "one number": (lambda f: write(f, InstanceNumber=1), (20, ())),
    "copied folder": (lambda f: (write(f / "a"), shutil.copytree(f / "a", f / "b")), "are duplicated"),
    "other patient": (
        lambda f: (write(f, WHOLE[:10]), write(f, WHOLE[10:], PatientID="p")),
        "2 patients ('', 'p')",
    ),
    "other modality": (lambda f: (write(f, WHOLE[:10]), write(f, WHOLE[10:], Modality="PT")), "2 modalities"),
    "other frame of reference": (
        lambda f: (write(f, WHOLE[:10]), write(f, WHOLE[10:], FrameOfReferenceUID="1.7")),
        (20, "2 frames of reference"),
    ),
    "empty slice": (lambda f: (write(f, WHOLE[:19]), (f / "IM019").write_bytes(b"")), "IM019 is empty"),
    "slice of zeros": (
        lambda f: (write(f, WHOLE[:19]), (f / "IM019.dcm").write_bytes(b"\0" * 900)),
        "IM019.dcm is empty",
    ),
    "text": (lambda f: (write(f), (f / "a.dcm").write_text("hello")), (20, "a.dcm is called as a DICOM file")),
    "packed slices": (
        lambda f: (write(f, WHOLE[:10]), (f / "b.dcm.gz").write_bytes(b"\x1f\x8b" + b"x" * 99)),
        (10, "b.dcm.gz in the folder was not opened"),
    ),
    "a Mac's folder": (
        lambda f: (write(f), (f / "._IM000.dcm").write_bytes(b"\0\5"), (f / ".DS_Store").write_bytes(b"x")),
        (20, ()),
    ),
}


@pytest.mark.parametrize("case", list(WHAT_IS_SAID))
def test_what_could_matter_is_said_and_a_zip_says_the_same(tmp_path, case):
    make, expected = WHAT_IS_SAID[case]
    folder = tmp_path / "scan"
    make(folder)
    result = seen(folder)
    if isinstance(expected, str):
        assert expected in result
    elif expected[1]:
        assert result[0] == expected[0]
        (note,) = result[1]
        assert expected[1] in note
    else:
        assert result == expected
    assert seen(zipped(folder)) == result


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IM019.dcm", "IM019.dcm is a link that leads nowhere, or no ordinary file"),
        ("part2", "part2 leads nowhere"),
    ],
)
@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_what_is_no_file_is_said(tmp_path, name, expected, kind):
    folder = write(tmp_path / "scan", WHOLE[:19])
    if kind == "FIFO":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/nowhere/else")
    result = seen(folder)
    assert expected in (result if isinstance(result, str) else result[1][0])


def test_links_in_a_circle_end(tmp_path):
    folder = write(tmp_path / "scan")
    (folder / "again").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    assert seen(folder) == (20, ())
    assert [summary.num_slices for summary in list_series(folder)] == [20]


def test_a_closed_folder_is_refused(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("this user may read every folder")
    folder = write(tmp_path / "scan")
    write(folder / "closed", WHOLE[:1])
    (folder / "closed").chmod(0)
    try:
        assert "cannot be read" in seen(folder)
    finally:
        (folder / "closed").chmod(0o755)
