"""`clickvol segment` from an archive and into one: Debian's Orthanc, found, fetched, stored, sent."""

import gc
import json
import signal
import tempfile
import time

import numpy as np
import pydicom
import pytest

from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.dicom.remote.dicomweb import PASSWORD_VARIABLE, USER_VARIABLE
from clickvol.io.formats import read_volume
from clickvol.io.mask_files import read_mask
from reference.dicom_series import write_series
from reference.forked_program import ForkedProgram
from reference.orthanc import PASSWORD, USER, needs_orthanc, relay, running_orthanc

# pynetdicom leaves a socket to the garbage collector where nobody answers; it is collected here.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()


SERIES = "1.2.999.4"
CLICK = ("--click", "12,14,8")


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def series(orthanc, tmp_path):
    orthanc.delete_all()
    folder = write_series(tmp_path / "ct", shape_dhw=(16, 28, 24))
    orthanc.upload(folder)
    return folder


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(USER_VARIABLE, USER)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    return tmp_path / "tmp"


@pytest.fixture
def segment(run, tiny_model):
    def run_it(scan, *words):
        return run("segment", scan, *CLICK, "--model", tiny_model, *words)

    return run_it


@needs_orthanc
@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_fetched_segmented_stored_and_read_back(segment, orthanc, series, tmp_path, own_temporary_folder, kind):
    words = ("--series", SERIES, "--store", "--dicom", kind, "-o", tmp_path / "m.dcm", "--json")
    code, out, err = segment(orthanc.dicomweb, *words)
    assert (code, "error" in err) == (0, False)
    facts = json.loads(out)
    address = orthanc.dicomweb.removeprefix("dicomweb+")
    assert (facts["scan"], facts["mask"]) == (address, str(tmp_path / "m.dcm"))
    assert facts["stored"][0].startswith(f"{address}/studies/1.2.999.1/series/2.25.")
    (stored,) = orthanc.instances({"seg": "SEG"}.get(kind, "RTSTRUCT"))
    assert orthanc.file(stored) == (tmp_path / "m.dcm").read_bytes()
    assert segment(series, "-o", tmp_path / "m.nii.gz").code == 0
    (mask,) = read_mask_file(tmp_path / "m.dcm", read_volume(series).grid)
    expected = read_mask(tmp_path / "m.nii.gz").array
    assert expected.any()
    np.testing.assert_array_equal(mask.mask.array, expected)
    assert list(own_temporary_folder.glob("clickvol-*")) == []


@needs_orthanc
def test_a_mask_that_is_only_stored_and_sent(segment, orthanc, series, own_temporary_folder):
    node = f"ARCHIVE@localhost:{orthanc.dicom_port}"
    code, out, _ = segment(orthanc.dicomweb, "--study", "1.2.999.1", "--store", "--send", node)
    assert code == 0
    assert out.startswith("mask: ")
    assert f"{node}: stored" in out
    assert len(orthanc.instances("SEG")) == 1  # the same one, both ways
    assert list(own_temporary_folder.glob("clickvol-*")) == []


@needs_orthanc
def test_the_mask_of_a_folder_is_sent(segment, orthanc, series, tmp_path):
    node = f"ARCHIVE@localhost:{orthanc.dicom_port}"
    assert segment(series, "--send", node).code == 0
    (sent,) = orthanc.instances("SEG")
    assert orthanc.file(sent)[128:132] == b"DICM"


@needs_orthanc
def test_a_mask_that_nobody_takes_stays_in_its_file(segment, orthanc, series, tmp_path):
    code, _, err = segment(series, "--send", "ARCHIVE@localhost:1", "-o", tmp_path / "m.dcm")
    assert code == 2
    assert err.count("\n") == 1
    assert err.rstrip().endswith(f"the mask is in {tmp_path / 'm.dcm'}")
    assert pydicom.dcmread(tmp_path / "m.dcm").Modality == "SEG"
    assert "no mask is kept" in segment(series, "--send", "ARCHIVE@localhost:1").err


@needs_orthanc
def test_mistakes_are_one_line_and_leave_nothing(
    segment, orthanc, series, tmp_path, own_temporary_folder, monkeypatch
):
    output = tmp_path / "m.nii.gz"
    whole = (orthanc.dicomweb, "--series", SERIES)
    for words, problem in (
        ((*whole, "-o", output, "--click", "1,2,300"), "lies outside the scan"),
        ((orthanc.dicomweb, "-o", output), "name one with --series"),
        ((orthanc.dicomweb, "--series", "1.2.3", "-o", output), "there is no series 1.2.3"),
        ((*whole, "-o", output, "--store"), "archives take masks as DICOM"),
        (whole, "nothing says where the mask goes"),
        ((series, "--store"), "--store goes with the address of an archive"),
        ((series, "--study", "1.2", "-o", output), "--study goes with the address of an archive"),
        ((series, "--send", "nobody"), "give AET@HOST:PORT"),
        (("dicomweb://user:secret@host/path", "-o", output), "no password belongs in it"),
        (("dicomweb+http://localhost:1/dicom-web", "--series", SERIES, "-o", output), "cannot reach"),
    ):
        code, out, err = segment(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), words
        assert problem in err
        assert "secret" not in err
        assert not output.exists()
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    code, _, err = segment(*whole, "-o", output)
    assert (code, "refuses who asks (401)" in err) == (2, True)
    assert list(own_temporary_folder.glob("clickvol-*")) == []


@needs_orthanc
def test_a_series_with_a_gap_is_told_by_the_address_of_its_archive(
    segment, orthanc, tmp_path, own_temporary_folder
):
    orthanc.delete_all()
    folder = write_series(tmp_path / "ct", shape_dhw=(16, 28, 24))
    (lost,) = [f for f in folder.iterdir() if pydicom.dcmread(f).InstanceNumber == 8]
    lost.unlink()
    orthanc.upload(folder)
    code, _, err = segment(orthanc.dicomweb, "--series", SERIES, "-o", tmp_path / "m.nii.gz")
    assert (code, err.count("\n")) == (2, 1)
    assert str(own_temporary_folder) not in err


@needs_orthanc
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupted_fetch_leaves_nothing(
    orthanc, series, tiny_model, tmp_path, own_temporary_folder, number, code
):
    is_stalled = []

    def stall():
        is_stalled.append(True)
        time.sleep(30)
        return True

    output = tmp_path / "m.nii.gz"
    with relay(orthanc.http_port, after_bytes=35_000, action=stall) as line:
        words = ["segment", line.dicomweb, "--series", SERIES, *CLICK, "--model", tiny_model, "-o", output]
        process = ForkedProgram(words)
        while not is_stalled:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.poll(), err) == (code, "interrupted\n")
    assert not output.exists()
    assert list(own_temporary_folder.glob("clickvol-*")) == []
