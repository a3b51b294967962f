"""Against Debian's Orthanc: a series comes whole or not at all, and every refusal is one line."""

import shutil

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickvol.errors import ArchiveError, ClickvolError, ConfigError, OutputError, ScanTooLargeError
from clickvol.files.limits import ReadLimits
from clickvol.io.dicom.remote.dicomweb import (
    PASSWORD_VARIABLE,
    TOKEN_VARIABLE,
    USER_VARIABLE,
    DicomWebArchive,
    is_dicomweb,
)
from clickvol.io.dicom.uids import new_uid
from clickvol.io.formats import read_volume
from reference.dicom_series import write_series
from reference.orthanc import PASSWORD, USER, needs_orthanc, relay, running_orthanc, self_signed

STUDY, SERIES = "1.2.999.1", "1.2.999.4"
WHO = {USER_VARIABLE: USER, PASSWORD_VARIABLE: PASSWORD}
SHAPE_DHW = (24, 28, 24)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def series(orthanc, tmp_path):
    orthanc.delete_all()
    folder = write_series(tmp_path / "ct", shape_dhw=SHAPE_DHW)
    orthanc.upload(folder)
    return folder


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("dicomweb://pacs/dicom-web/", "https://pacs/dicom-web"),
        ("dicomweb://pacs:8443/a/b", "https://pacs:8443/a/b"),
        ("dicomweb+http://127.0.0.1:8042/dicom-web", "http://127.0.0.1:8042/dicom-web"),
        ("https://pacs", "https://pacs"),
        ("dicomweb://[::1]:8042/x", "https://[::1]:8042/x"),
    ],
)
def test_what_an_address_means(address, meant):
    assert DicomWebArchive(address, {}).address == meant


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("dicomweb://", "is not the address of an archive"),
        ("dicomweb:///path", "is not the address of an archive"),
        ("dicomweb://host:0/path", "is not the address of an archive"),
        ("dicomweb://host:99999/path", "is not the address of an archive"),
        ("dicomweb://host/path?x=1", "is not the address of an archive"),
        ("ftp://host/path", "is not the address of an archive"),
        ("dicomweb://user:secret@host/path", "no password belongs in it"),
    ],
)
def test_addresses_that_are_none(address, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        DicomWebArchive(address, {})
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text):
    try:
        archive = DicomWebArchive(f"dicomweb://{text}", {})
    except ConfigError:
        return
    assert archive.address.startswith("https://")


def test_only_the_two_schemes_make_a_scan_an_address():
    assert [is_dicomweb(t) for t in ("dicomweb://h", "dicomweb+http://h", "https://h", "dicomweb", "a/b")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_half_a_pair_of_credentials():
    with pytest.raises(ConfigError, match="go together"):
        DicomWebArchive("dicomweb://host", {USER_VARIABLE: "x"})


@needs_orthanc
def test_a_series_comes_as_it_is(orthanc, series, target):
    archive = DicomWebArchive(orthanc.dicomweb, WHO)
    remote = archive.find_series(SERIES, None)
    assert (remote.study_uid, remote.summary.num_slices, remote.summary.modality) == (STUDY, 24, "CT")
    archive.fetch(remote, target)
    ours, theirs = read_volume(target), read_volume(series)
    assert np.array_equal(ours.array, theirs.array)
    assert ours.grid.same_place(theirs.grid)
    stored = {pydicom.dcmread(f).SOPInstanceUID: f.read_bytes() for f in series.iterdir()}
    assert {pydicom.dcmread(f).SOPInstanceUID: f.read_bytes() for f in target.iterdir()} == stored


@needs_orthanc
def test_how_a_series_is_named(orthanc, series):
    archive = DicomWebArchive(orthanc.dicomweb, WHO)
    expected = archive.find_series(SERIES, None)
    for name in (None, "5", SERIES):
        assert archive.find_series(name, STUDY) == expected
    for name, study, problem in (
        (None, None, "name one with --series"),
        ("5", None, "name one with --series"),
        ("1.2.3", None, "there is no series 1.2.3"),
        ("6", STUDY, "there are .*'abdomen', CT, 24 slices"),
        (SERIES, "1.2.3", "there is no series"),
        ("../x", STUDY, "is not a UID"),
        ("1.2*", None, "is not a UID"),
    ):
        with pytest.raises(ClickvolError, match=problem):
            archive.find_series(name, study)


@needs_orthanc
def test_a_series_in_two_studies_and_a_study_with_two(orthanc, series, tmp_path):
    orthanc.upload(_renamed(series, tmp_path / "b", StudyInstanceUID="1.2.999.8", PatientID="other"))
    archive = DicomWebArchive(orthanc.dicomweb, WHO)
    with pytest.raises(ArchiveError, match=r"in several studies .*--study UID"):
        archive.find_series(SERIES, None)
    assert archive.find_series(SERIES, "1.2.999.8").study_uid == "1.2.999.8"
    orthanc.upload(_renamed(series, tmp_path / "c", SeriesInstanceUID="1.2.999.40"))
    with pytest.raises(ArchiveError, match="several CT, MR or PET series"):
        archive.find_series(None, STUDY)
    with pytest.raises(ArchiveError, match="several series 5"):
        archive.find_series("5", STUDY)


def _renamed(series, folder, **tags):
    """Copy a series under other attributes; its images are others, too."""
    shutil.copytree(series, folder)
    for file in folder.iterdir():
        image = pydicom.dcmread(file)
        for name, value in tags.items():
            setattr(image, name, value)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = new_uid()
        image.save_as(file, enforce_file_format=True)
    return folder


@needs_orthanc
@pytest.mark.parametrize("who", [{}, WHO | {PASSWORD_VARIABLE: "wrong"}, {TOKEN_VARIABLE: "no-token-of-ours"}])
def test_wrong_credentials(orthanc, series, who):
    with pytest.raises(ArchiveError, match=r"refuses who asks \(401\); set CLICKVOL_DICOMWEB_USER") as caught:
        DicomWebArchive(orthanc.dicomweb, who).find_series(SERIES, None)
    assert "wrong" not in str(caught.value)


@needs_orthanc
def test_a_token_is_sent_as_a_bearer_and_users_in_any_script(orthanc):
    with relay(orthanc.http_port) as line:
        for who in ({TOKEN_VARIABLE: "tok"}, {USER_VARIABLE: "jörg", PASSWORD_VARIABLE: "秘密"}):
            with pytest.raises(ArchiveError, match="401"):
                DicomWebArchive(line.dicomweb, who).list_series()
        assert b"Authorization: Bearer tok\r\n" in line.requests
        assert b"Authorization: Basic asO2cmc656eY5a+G\r\n" in line.requests


@pytest.mark.parametrize("scheme", ["dicomweb", "dicomweb+http"])
def test_nobody_there(scheme):
    with pytest.raises(ArchiveError, match="cannot reach"):
        DicomWebArchive(f"{scheme}://127.0.0.1:1/dicom-web", {}).list_series()
    with pytest.raises(ArchiveError, match="cannot reach"):
        DicomWebArchive(f"{scheme}://no-such-host.invalid/dicom-web", {}).list_series()


@needs_orthanc
def test_other_paths(orthanc, series):
    base = orthanc.dicomweb.removesuffix("/dicom-web")
    for path in ("", "/dicom", "/dicom-web/studies"):
        with pytest.raises(ArchiveError, match="has nothing there"):
            DicomWebArchive(base + path, WHO).list_series()
    with pytest.raises(ArchiveError, match=r"sends to another address|not DICOMweb|has nothing there"):
        DicomWebArchive(f"{base}/app", WHO).list_series()


@needs_orthanc
def test_certificates_are_verified(orthanc, series, tmp_path, monkeypatch):
    both, authority = self_signed(tmp_path)
    with relay(orthanc.http_port, certificate=both) as line:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        with pytest.raises(
            ArchiveError, match=r"certificate of https://localhost:.* is not one that this machine"
        ):
            DicomWebArchive(line.dicomweb, WHO).list_series()
        assert line.requests == b""
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        (known,) = DicomWebArchive(line.dicomweb, WHO).list_series()
        assert known.summary.uid == SERIES
        with pytest.raises(ArchiveError, match="cannot reach"):
            DicomWebArchive(line.dicomweb.replace("dicomweb:", "dicomweb+http:"), WHO).list_series()


@needs_orthanc
@pytest.mark.parametrize("after_bytes", [23_000, 29_000, 35_000, 41_000])
def test_a_line_that_breaks_leaves_nothing(orthanc, series, target, after_bytes):
    with relay(orthanc.http_port, after_bytes=after_bytes) as line:
        archive = DicomWebArchive(line.dicomweb, WHO)
        remote = archive.find_series(SERIES, None)
        with pytest.raises(
            ArchiveError, match=r"connection to .* broke \((fetching|listing) .*\); nothing was kept"
        ):
            archive.fetch(remote, target)
    assert list(target.iterdir()) == []


@needs_orthanc
def test_a_series_that_grows_or_shrinks_while_it_is_fetched(orthanc, series, target, tmp_path):
    late = write_series(tmp_path / "late", shape_dhw=(25, 28, 24))
    for file in late.iterdir():
        if pydicom.dcmread(file).InstanceNumber != 25:
            file.unlink()

    def grow():
        orthanc.upload(late)
        return False

    def shrink():
        (first, *_) = orthanc.instances("CT")
        with orthanc.rest as rest:
            rest.delete(f"/instances/{first}").raise_for_status()
        return False

    for action in (grow, shrink):
        with relay(orthanc.http_port, after_bytes=45_000, action=action) as line:
            archive = DicomWebArchive(line.dicomweb, WHO)
            with pytest.raises(ArchiveError, match="is not whole there or is changing"):
                archive.fetch(archive.find_series(SERIES, None), target)
        assert list(target.iterdir()) == []


@needs_orthanc
def test_a_file_that_the_archive_has_lost(orthanc, series, target):
    archive = DicomWebArchive(orthanc.dicomweb, WHO)
    remote = archive.find_series(SERIES, None)  # for which it may need any of its files
    stored = [f for f in (orthanc.folder / "db").rglob("*") if f.is_file() and not f.name.startswith("index")]
    max(stored, key=lambda f: f.stat().st_size).unlink()
    with pytest.raises(ArchiveError):
        archive.fetch(remote, target)
    assert list(target.iterdir()) == []


@needs_orthanc
def test_limits_and_a_full_disk(orthanc, series, target, monkeypatch):
    archive = DicomWebArchive(orthanc.dicomweb, WHO)
    remote = archive.find_series(SERIES, None)
    with pytest.raises(ScanTooLargeError, match="unpacks to"):
        archive.fetch(remote, target, limits=ReadLimits(max_voxels=10, max_bytes_unpacked=9_000))
    assert list(target.iterdir()) == []
    target.chmod(0o500)
    try:
        if not _can_write(target):
            with pytest.raises(OutputError, match="cannot keep what"):
                archive.fetch(remote, target)
    finally:
        target.chmod(0o700)


def _can_write(folder):
    try:
        (folder / "x").touch()
    except OSError:
        return False
    (folder / "x").unlink()
    return True


@needs_orthanc
def test_what_is_stored_comes_back_byte_for_byte(orthanc, series):
    archive = DicomWebArchive(orthanc.dicomweb, WHO)
    file = next(
        iter(_renamed(series, series.parent / "new", Modality="OT", SeriesInstanceUID="1.2.999.44").iterdir())
    )
    uid = pydicom.dcmread(file).SOPInstanceUID
    assert archive.store([file]) == [f"{archive.address}/studies/{STUDY}/series/1.2.999.44/instances/{uid}"]
    (stored,) = orthanc.instances("OT")
    assert orthanc.file(stored) == file.read_bytes()
