"""A server before Orthanc: what OHIF asks for by UID is fetched once, and answered as from a folder."""

import json
import os
import time

import numpy as np
import pydicom
import pytest
import SimpleITK
from starlette.testclient import TestClient

from clickvol.errors import ConfigError
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.dicom.remote.dicomweb import PASSWORD_VARIABLE, USER_VARIABLE
from clickvol.io.formats import read_volume
from reference.dicom_series import write_series
from reference.orthanc import PASSWORD, USER, needs_orthanc, relay, running_orthanc

SERIES = "1.2.999.4"
CLICK = [12, 14, 8]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv(USER_VARIABLE, USER)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)


@pytest.fixture
def series(orthanc, tmp_path):
    orthanc.delete_all()
    folder = write_series(tmp_path / "ct", shape_dhw=(16, 28, 24))
    orthanc.upload(folder)
    return folder


@pytest.fixture
def line(orthanc):
    """What the server has asked the archive for can be seen here."""
    with relay(orthanc.http_port) as open_line:
        yield open_line


@pytest.fixture
def client(make_client, line):
    return make_client(dicomweb=line.dicomweb)


def infer(client, image=SERIES, click=CLICK):
    params = {"params": (None, json.dumps({"foreground": [click], "result_extension": ".nrrd"}))}
    return client.post(f"/infer/random?image={image}&output=image", files=params)


def num_fetches(line):
    return line.requests.count(b"GET /dicom-web/studies/1.2.999.1/series/1.2.999.4 ")


def staged(tmp_path):
    folder = tmp_path / "state" / "fetching"
    return list(folder.iterdir()) if folder.exists() else []


@needs_orthanc
def test_the_mask_is_that_of_the_folder_and_the_series_is_fetched_once(
    client, series, root, line, tmp_path, make_client
):
    assert client.get("/datastore/?output=list").json() == [SERIES, "scan"]
    assert num_fetches(line) == 0
    replies = [infer(client) for _ in range(3)]
    assert [r.status_code for r in replies] == [200] * 3, replies[0].text
    assert num_fetches(line) == 1
    series.rename(root / "ct")
    of_folder = make_client(state_folder=tmp_path / "other-state")
    assert infer(of_folder).content == replies[0].content == replies[2].content
    (tmp_path / "m.nrrd").write_bytes(replies[0].content)
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "m.nrrd")))
    assert mask.shape == (16, 28, 24)
    assert mask.any()
    assert staged(tmp_path) == []


@needs_orthanc
def test_the_image_can_be_downloaded(client, series, tmp_path):
    (tmp_path / "image.nii.gz").write_bytes(client.get(f"/datastore/image?image={SERIES}").content)
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "image.nii.gz")))
    slices = [pydicom.dcmread(f) for f in series.iterdir()]
    slices.sort(key=lambda one: one.InstanceNumber)
    assert np.array_equal(image, np.stack([one.pixel_array.astype(int) - 1024 for one in slices]))


@needs_orthanc
def test_a_restarted_server_has_the_series_still(client, series, line, make_client):
    mask = infer(client).content
    client.__exit__(None, None, None)
    again = make_client(dicomweb=line.dicomweb)
    assert infer(again).content == mask
    assert num_fetches(line) == 1
    again.__exit__(None, None, None)


@needs_orthanc
def test_a_series_that_has_grown_is_fetched_again(client, series, orthanc, line, tmp_path):
    assert infer(client, click=[12, 14, 20]).status_code == 422  # above the last slice
    orthanc.upload(write_series(tmp_path / "more", shape_dhw=(24, 28, 24)))
    assert infer(client, click=[12, 14, 20]).status_code == 200
    assert num_fetches(line) == 2


@needs_orthanc
def test_each_client_has_a_session_of_its_own(client, series, line):
    other = TestClient(client.app, base_url="http://127.0.0.1:8000", client=("192.0.2.7", 50000))
    assert infer(other).content == infer(client).content
    assert num_fetches(line) == 2


@needs_orthanc
def test_what_is_not_there(client, series, root):
    assert infer(client, "1.2.3").status_code == 404
    assert infer(client, "../../etc/passwd").status_code == 404
    assert infer(client, "scan", [20, 20, 8]).status_code == 200  # under the root as before
    reply = client.put(f"/datastore/?image={SERIES}", files={"file": ("a.nii.gz", b"x")})
    assert reply.status_code == 409


@needs_orthanc
def test_an_archive_that_is_gone_refuses_or_breaks_off(client, series, orthanc, line, monkeypatch, tmp_path):
    line.action, line.after_bytes = lambda: True, 30_000
    reply = infer(client)
    assert (reply.status_code, reply.json()["error"].count("\n")) == (502, 0)
    assert "broke" in reply.json()["error"]
    assert staged(tmp_path) == []
    line.after_bytes = 1 << 60
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    reply = infer(client)
    assert (reply.status_code, "refuses who asks" in reply.json()["error"]) == (502, True)
    line.close()
    for reply in (infer(client), client.get("/datastore/")):
        assert (reply.status_code, "cannot reach" in reply.json()["error"]) == (502, True)


@needs_orthanc
def test_a_series_above_the_limit(make_client, series, orthanc, tmp_path):
    client = make_client(dicomweb=orthanc.dicomweb, max_voxels=1000)
    reply = infer(client)
    assert (reply.status_code, reply.json()["error"].count("\n")) == (413, 0)
    assert staged(tmp_path) == []


def test_an_address_that_is_none_ends_the_start(make_client):
    with pytest.raises(ConfigError, match="is not the address of an archive"):
        make_client(dicomweb="pacs.local/dicom-web")


@needs_orthanc
def test_what_a_killed_server_had_half_fetched_is_removed(make_client, orthanc, tmp_path):
    old, new = (tmp_path / "state" / "fetching" / name for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "000000.dcm").write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    make_client(dicomweb=orthanc.dicomweb)
    assert staged(tmp_path) == [new]


@needs_orthanc
def test_a_saved_label_is_stored_in_the_archive(make_client, series, orthanc, tmp_path):
    client = make_client(dicomweb=orthanc.dicomweb, labels=tmp_path / "labels", store_labels=True)
    array = np.zeros((16, 28, 24), np.uint8)
    array[3:6, 4:9, 5:11], array[9:12, 4:9, 5:11] = 1, 2
    info = [{"name": "lesion", "idx": 1}, {"name": "node", "idx": 2}]
    params = {"params": (None, json.dumps({"label_info": info}))}
    sent = {"label": ("label.bin", array.tobytes()), **params}
    reply = client.put(f"/datastore/label?image={SERIES}", files=sent)
    assert reply.status_code == 200, reply.text
    (stored,) = orthanc.instances("SEG")
    (tmp_path / "seg.dcm").write_bytes(orthanc.file(stored))
    masks = read_mask_file(tmp_path / "seg.dcm", read_volume(series).grid)
    assert [mask.name for mask in masks] == ["lesion", "node"]
    assert all(np.array_equal(mask.mask.array, array == value) for value, mask in enumerate(masks, start=1))
    # OHIF goes to the next sample by its study.
    assert client.post("/activelearning/first", json={}).json()["id"] == "scan"
    client.put("/datastore/label?image=scan", files={"label": ("label.bin", b"\1" + bytes(16 * 40 * 44 - 1))})
    assert client.post("/activelearning/first", json={}).json() == {}
    orthanc.upload(_renamed_series(series, tmp_path / "next"))
    sample = client.post("/activelearning/first", json={}).json()
    assert (sample["StudyInstanceUID"], sample["id"]) == ("1.2.999.1", "1.2.999.45")
    assert len(orthanc.instances("SEG")) == 1


def _renamed_series(series, folder):
    folder.mkdir()
    for number, file in enumerate(sorted(series.iterdir())):
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID = "1.2.999.45"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.999.46.{number}"
        image.save_as(folder / file.name, enforce_file_format=True)
    return folder
