"""Which scans are under a root, and what of it is none."""

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from clickvol.io.formats import read_volume
from clickvol.server.monai_label.images import list_images, record_of_image
from clickvol.server.refusal import RefusedError
from reference.dicom_series import write_series


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "root" / "series", shape_dhw=(6, 24, 20))


def uid_of(folder):
    return str(pydicom.dcmread(min(filter(Path.is_file, folder.iterdir()))).SeriesInstanceUID)


def as_seg(path):
    header = pydicom.dcmread(path)
    header.Modality = "SEG"
    header.SeriesInstanceUID += ".9"
    header.save_as(path)


def test_a_folder_that_is_no_scan_is_skipped_and_said(tmp_path, series):
    root, uid = tmp_path / "root", uid_of(series)
    only_seg, cut, plan = root / "only-seg", root / "cut", root / "plan" / "deep"
    for folder in (only_seg, cut, plan):
        folder.mkdir(parents=True)
        shutil.copy(min(series.iterdir()), folder / "1.dcm")
    as_seg(only_seg / "1.dcm")
    as_seg(plan / "1.dcm")
    (cut / "1.dcm").write_bytes((cut / "1.dcm").read_bytes()[:400])
    listed = list_images(root)
    assert listed.images == {uid: (series,)}
    assert set(listed.skipped) == {"only-seg", "cut", "plan/deep"}
    assert "no images" in listed.skipped["only-seg"]
    assert str(tmp_path) not in str(listed.skipped)


def test_a_folder_of_masks_does_not_stand_for_the_scans_below_it(tmp_path, series):
    root, uid = tmp_path / "root", uid_of(series)
    shutil.copy(min(series.iterdir()), root / "mask.dcm")
    as_seg(root / "mask.dcm")
    listed = list_images(root)
    assert listed.images == {uid: (series,)}
    assert list(listed.skipped) == ["."]


def test_a_series_in_two_folders_is_put_together(tmp_path, series):
    root, uid = tmp_path / "root", uid_of(series)
    whole = read_volume(series)
    other = root / "series-b"
    other.mkdir()
    for file in sorted(series.iterdir())[::2]:
        file.rename(other / file.name)
    assert list_images(root).images == {uid: (series, other)}
    session_folder = tmp_path / "session"
    session_folder.mkdir()
    record = record_of_image(root, uid, session_folder)
    again = read_volume(session_folder / record.scan, series=record.series)
    assert np.array_equal(again.array, whole.array)
    assert again.grid.same_place(whole.grid)


def test_a_pipe_is_never_opened(tmp_path, series):
    root = tmp_path / "root"
    for name in ("0-pipe", "pipe.nii.gz", "series/0-pipe"):
        os.mkfifo(root / name)
    assert list(list_images(root).images) == [uid_of(series)]
    with pytest.raises(RefusedError, match="no such image"):
        record_of_image(root, "pipe", tmp_path)
