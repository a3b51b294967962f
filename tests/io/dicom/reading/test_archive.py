import stat
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clickvol.errors import DicomSeriesError, ScanTooLargeError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.io.dicom.reading import search
from clickvol.io.dicom.reading.search import opened_dicom
from clickvol.io.dicom.reading.series import list_series, read_dicom
from clickvol.io.formats import read_volume

LARGE = 10**9


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files, empty before and, as each test here shows, after."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def zipped(path, files, **options):
    """Write a zip of (name, content) pairs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def contents(folder):
    return [(file.name, file.read_bytes()) for file in sorted(folder.iterdir())]


def test_a_zip_reads_as_its_folder_does_and_leaves_nothing(write_series, tmp_path, temporary):
    folder = write_series()
    archive = zipped(tmp_path / "CT.ZIP", contents(folder))
    volume, expected = read_volume(archive), read_volume(folder)
    np.testing.assert_array_equal(volume.array, expected.array)
    assert (volume.grid, volume.modality, volume.notes) == (expected.grid, "CT", ())
    assert volume.source == str(archive)
    assert list_series(archive) == list_series(folder)
    assert list(temporary.iterdir()) == []


def test_files_lie_anywhere_in_the_zip_among_others(write_series, tmp_path, temporary):
    (one, a), (two, b), (three, c), (four, d) = contents(write_series())
    files = [
        (f"deep/er/{one}", a),
        ("deep/readme.txt", b"hello"),
        ("DICOMDIR", b""),
        (f"deep/other/{two}", b),
        (f"{three}", c),
        ("__MACOSX/deep/._x", b"\0\5\26\7" * 40),
        (f"deep/er/{four}", d),
        ("nested.zip", b"PK\3\4" + b"\0" * 200),
    ]
    archive = zipped(tmp_path / "ct.zip", files)
    with opened_dicom(archive) as folder:
        sizes = {p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    # Of what is not DICOM no more than a search looks at.
    others = {"readme.txt": 5, "DICOMDIR": 0, "._x": 132, "nested.zip": 132}
    assert sizes == others | {one: len(a), two: len(b), three: len(c), four: len(d)}
    assert read_dicom(archive).grid.shape_dhw == (4, 5, 6)
    assert list(temporary.iterdir()) == []


def test_a_folder_is_lent_as_it_is(tmp_path, temporary):
    with opened_dicom(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.is_dir()


@pytest.mark.parametrize(
    "evil",
    [
        "../../{}",
        "/tmp/{}",
        "..\\..\\{}",
        "C:\\{}",
        "a/../../../{}",
        "{}/..",
        "..",
        "con\n\x1b[2J{}",
    ],
)
def test_no_name_leads_out_of_the_folder(write_series, tmp_path, temporary, evil):
    files = [(evil.format(f"IM{n}"), content) for n, (_, content) in enumerate(contents(write_series()))]
    if evil == "..":
        files = files[:1]
    archive = tmp_path / "ct.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for name, content in files:
            info = zipfile.ZipInfo("x")
            info.filename = name  # as written, without what zipfile makes of it
            writer.writestr(info, content)
    before = sorted(tmp_path.rglob("*"))
    with opened_dicom(archive) as folder:
        assert folder.parent == temporary
        result = [p for p in folder.rglob("*") if p.is_file()]
        assert len(result) == len(files)
        assert all(p.parent.parent == folder and p.name.isprintable() for p in result)
        assert all(p.resolve().is_relative_to(folder) for p in result)
        assert sorted(p for p in tmp_path.rglob("*") if not p.is_relative_to(folder)) == before
    assert list(temporary.iterdir()) == []


def test_a_link_in_a_zip_is_not_followed(write_series, tmp_path, temporary):
    folder = write_series()
    target = sorted(folder.iterdir())[0]
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as archive:
        archive.writestr(link, str(target))
    with opened_dicom(tmp_path / "ct.zip") as unpacked:
        (entry,) = (p for p in unpacked.rglob("*") if not p.is_dir())
        assert not entry.is_symlink()
        assert entry.read_text() == str(target)[:132]
    with pytest.raises(UnreadableVolumeError, match=r"ct\.zip holds no DICOM images"):
        read_dicom(tmp_path / "ct.zip")


def test_what_a_zip_unpacks_to_is_bounded(write_series, tmp_path, temporary):
    files = contents(write_series())
    total = sum(len(content) for _, content in files)
    archive = zipped(tmp_path / "ct.zip", files)
    enough = ReadLimits(max_voxels=120, max_bytes_unpacked=total)
    assert read_volume(archive, limits=enough).array.size == 120
    with pytest.raises(ScanTooLargeError, match=f"ct.zip unpacks to {total} bytes"):
        read_volume(archive, limits=ReadLimits(max_voxels=120, max_bytes_unpacked=total - 1))
    with pytest.raises(ScanTooLargeError, match="holds 120 voxels, but at most 119"):
        read_volume(archive, limits=ReadLimits(max_voxels=119, max_bytes_unpacked=total))
    bomb = zipped(tmp_path / "bomb.zip", [(f"{n}", bytes(10**6)) for n in range(50)])
    assert bomb.stat().st_size < 10**5
    with pytest.raises(ScanTooLargeError, match=r"bomb\.zip unpacks to 50000000 bytes"):
        read_volume(bomb, limits=ReadLimits(max_voxels=120, max_bytes_unpacked=49_999_999))
    assert list(temporary.iterdir()) == []


def test_a_zip_that_the_disk_cannot_hold_is_refused(tmp_path, temporary, monkeypatch):
    big = zipped(tmp_path / "big.zip", [("a", bytes(1000))])
    usage = type("Usage", (), {"free": 999})
    monkeypatch.setattr(search.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UnreadableVolumeError, match=r"unpacks to 1000 bytes, but .* has 999 left"):
        read_dicom(big)


def test_too_many_entries_are_refused(write_series, tmp_path, temporary, monkeypatch):
    monkeypatch.setattr(search, "_MAX_ENTRIES", 4)
    files = contents(write_series())
    assert read_dicom(zipped(tmp_path / "four.zip", files)).grid.shape_dhw[0] == 4
    with pytest.raises(UnreadableVolumeError, match="has 5 entries, but at most 4"):
        read_dicom(zipped(tmp_path / "five.zip", [*files, ("x", b"")]))


def test_damaged_and_encrypted_zips_are_refused_in_a_line(write_series, tmp_path, temporary):
    files = contents(write_series())
    whole = zipped(tmp_path / "ct.zip", files).read_bytes()
    cases = {"none.zip": b"no zip", "cut.zip": whole[: len(whole) // 2], "empty.zip": b""}
    middle = whole.find(b"IM") + 40
    cases["changed.zip"] = whole[:middle] + bytes(20) + whole[middle + 20 :]
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableVolumeError, match=f"{name} is not a zip or is damaged") as e:
            read_volume(tmp_path / name)
        assert "\n" not in str(e.value)
    # The flags stand 8 bytes into an entry of the directory.
    locked = bytearray(whole)
    locked[locked.find(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    with pytest.raises(UnreadableVolumeError, match=r"locked\.zip is encrypted"):
        read_volume(tmp_path / "locked.zip")
    assert list(temporary.iterdir()) == []


def test_a_series_is_chosen_from_a_zip_and_its_faults_named(write_series, tmp_path, temporary):
    first = contents(write_series())
    second = contents(write_series("mr", SeriesInstanceUID="1.2.9", SeriesNumber=9, Modality="MR"))
    archive = zipped(tmp_path / "both.zip", [(f"{k}/{name}", c) for k, (name, c) in enumerate(first + second)])
    with pytest.raises(DicomSeriesError, match=r"both\.zip holds 2 series"):
        read_volume(archive)
    assert read_volume(archive, series="9").modality == "MR"
    with pytest.raises(UnreadableVolumeError, match="volume 0 only"):
        read_volume(archive, series="9", volume_index=1)
    broken = zipped(tmp_path / "broken.zip", [("a/IM1", b"\0" * 128 + b"DICM" + b"\xff" * 10)])
    with pytest.raises(DicomSeriesError, match=r"broken\.zip: IM1 is a damaged"):
        read_volume(broken)
    assert list(temporary.iterdir()) == []
