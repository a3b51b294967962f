"""C-STORE to Debian's Orthanc."""

import gc
import io

import pydicom
import pytest

from clickvol.errors import ArchiveError, ConfigError
from clickvol.io.dicom.remote.sending import DicomNode, send_files
from reference.dicom_series import write_series
from reference.orthanc import needs_orthanc, running_orthanc

# pynetdicom leaves a socket to the garbage collector where nobody answers; it is collected here.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("ARCHIVE@pacs.local:104", ("ARCHIVE", "pacs.local", 104)),
        (" MY PACS_1@10.0.0.7:11112 ", ("MY PACS_1", "10.0.0.7", 11112)),
        ("A@[::1]:4242", ("A", "::1", 4242)),
    ],
)
def test_a_node(text, node):
    known = DicomNode.parse(text)
    assert (known.title, known.host, known.port) == node


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ARCHIVE",
        "@h:1",
        "  @h:1",
        "A@h",
        "A@h:0",
        "A@h:65536",
        "A@h:x",
        "SEVENTEEN-LETTERS@h:1",
        "A\\B@h:1",
        "A@:1",
    ],
)
def test_no_node(text):
    with pytest.raises(ConfigError, match="give AET@HOST:PORT"):
        DicomNode.parse(text)


def data_set_bytes(content):
    """Return a file's bytes behind its meta information, which every archive writes anew."""
    meta = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).file_meta
    return content[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


@needs_orthanc
def test_files_arrive_as_they_are(orthanc, tmp_path):
    files = sorted(write_series(tmp_path / "ct").iterdir())
    send_files(files, DicomNode("ARCHIVE", "localhost", orthanc.dicom_port))
    arrived = {data_set_bytes(orthanc.file(one)) for one in orthanc.instances("CT")}
    assert arrived == {data_set_bytes(file.read_bytes()) for file in files}
    assert len(arrived) == 5


@needs_orthanc
def test_a_title_that_is_not_theirs(orthanc, tmp_path):
    file = next(iter(write_series(tmp_path / "ct").iterdir()))
    for _ in range(30):  # whether its hanging up overtakes its rejection is chance
        with pytest.raises(ArchiveError, match=r"OTHER@localhost:\d+ does not talk to CLICKVOL"):
            send_files([file], DicomNode("OTHER", "localhost", orthanc.dicom_port))


@needs_orthanc
def test_who_does_not_speak_dicom(orthanc, tmp_path):
    file = next(iter(write_series(tmp_path / "ct").iterdir()))
    for port in (1, orthanc.http_port):
        with pytest.raises(ArchiveError, match=r"cannot reach|does not talk"):
            send_files([file], DicomNode("ARCHIVE", "localhost", port))


@needs_orthanc
def test_a_kind_of_file_that_is_not_taken(tmp_path):
    file = next(iter(write_series(tmp_path / "ct").iterdir()))
    with running_orthanc(
        tmp_path / "orthanc", UnknownSopClassAccepted=False, DicomAlwaysAllowStore=False
    ) as closed:
        with pytest.raises(ArchiveError, match="broke the connection instead of storing"):
            send_files([file], DicomNode("ARCHIVE", "localhost", closed.dicom_port))
        assert closed.instances("CT") == []
