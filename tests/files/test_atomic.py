import os
import stat

import pytest

from clickvol.errors import OutputError
from clickvol.files.atomic import atomic_path, make_folder, write_text


def write_half(target, failure):
    with atomic_path(target, target.suffix) as temporary:
        temporary.write_bytes(b"half")
        raise failure


def test_the_file_appears_only_at_the_end(tmp_path):
    target = tmp_path / "m.nii.gz"
    with atomic_path(target, ".nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "m.nii.gz"]


def test_a_text_is_the_same_bytes_on_every_system(tmp_path):
    target = tmp_path / "t.txt"
    write_text(target, "first\nsecond μ\n")
    assert target.read_bytes() == b"first\nsecond \xce\xbc\n"


def test_a_folder_is_made_with_those_above_it_or_refused_with_the_advice(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make the folder .*file.b: .*; take another"):
        make_folder(tmp_path / "file" / "b", "take another")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_a_crash_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    target = tmp_path / "m.mha"
    target.write_bytes(b"old")
    with pytest.raises(failure):
        write_half(target, failure())
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "m.mha"]


def test_a_full_disk_is_one_clear_line(tmp_path):
    full = OSError(28, "No space left on device")
    with pytest.raises(OutputError, match="disk full \\(No space left on device\\); free space") as caught:
        write_half(tmp_path / "m.nii", full)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.nii").write_bytes(b"old")
    (tmp_path / "link.nii").symlink_to(tmp_path / "real.nii")
    with atomic_path(tmp_path / "link.nii", ".nii") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "link.nii").is_symlink()
    assert (tmp_path / "real.nii").read_bytes() == b"new"


def test_permissions_follow_the_umask(tmp_path):
    previous = os.umask(0o022)
    try:
        with atomic_path(tmp_path / "m.nii", ".nii") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "m.nii").stat().st_mode) == 0o644
