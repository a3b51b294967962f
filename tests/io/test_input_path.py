from pathlib import Path

import pytest

from clickvol.errors import ClickvolError, UnreadableVolumeError
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.dicom.reading.series import list_series
from clickvol.io.formats import read_volume
from clickvol.io.input_path import kind_of_path


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
