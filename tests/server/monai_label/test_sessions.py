"""Names belong to the client that gave them."""

import json

import pytest
from starlette.testclient import TestClient

from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def other_scan(tmp_path):
    volume = make_phantom(4, shape_dhw=(16, 40, 44)).volume
    write_volume(volume.array, volume.grid, tmp_path / "other.nii.gz")
    return (tmp_path / "other.nii.gz").read_bytes()


@pytest.fixture
def two(client):
    return client, TestClient(client.app, base_url=ADDRESS, client=("192.0.2.7", 50000))


def upload(client, content, image):
    return client.put(f"/datastore/?image={image}", files={"file": ("a.nii.gz", content)})


def infer(client, image, place, **words):
    params = {"params": (None, json.dumps({"foreground": [place], "result_extension": ".nii.gz"})), **words}
    return client.post(f"/infer/random?image={image}&output=image", files=params)


def place_in(phantom):
    return [round(v) for v in phantom.inside.to_ijk()]


def test_nobody_reads_what_another_client_uploaded(two, root, phantom):
    one, other = two
    content = (root / "scan.nii.gz").read_bytes()
    assert upload(one, content, "Meier").status_code == 200
    assert one.get("/datastore/image?image=Meier").status_code == 200
    assert other.get("/datastore/image?image=Meier").status_code == 404
    assert infer(other, "Meier", place_in(phantom)).status_code == 404
    assert other.delete("/datastore/?id=Meier").status_code == 404
    assert infer(one, "Meier", place_in(phantom)).status_code == 200


def test_two_clients_use_one_name_for_two_scans(two, root, phantom, other_scan):
    one, other = two
    upload(one, (root / "scan.nii.gz").read_bytes(), "x")
    mask = infer(one, "x", place_in(phantom)).content
    assert upload(other, other_scan, "x").status_code == 200
    assert infer(one, "x", place_in(phantom)).content == mask
    assert infer(other, "x", place_in(phantom)).content != mask


def test_a_second_scan_under_a_name_is_refused_until_the_first_is_deleted(client, root, phantom, other_scan):
    scan = (root / "scan.nii.gz").read_bytes()
    upload(client, scan, "x")
    mask = infer(client, "x", place_in(phantom)).content
    refused = upload(client, other_scan, "x")
    assert refused.status_code == 409
    assert "another scan" in refused.json()["error"]
    assert infer(client, "x", place_in(phantom)).content == mask
    assert upload(client, scan, "x").status_code == 200
    assert client.get("/api/health").json()["sessions"] == 1
    assert client.delete("/datastore/?id=x").status_code == 200
    assert upload(client, other_scan, "x").status_code == 200


def test_the_same_scan_in_another_file_is_the_same_scan(client, root, phantom, tmp_path):
    upload(client, (root / "scan.nii.gz").read_bytes(), "x")
    write_volume(phantom.volume.array, phantom.volume.grid, tmp_path / "scan.nii")
    again = client.put("/datastore/?image=x", files={"file": ("a.nii", (tmp_path / "scan.nii").read_bytes())})
    assert again.status_code == 200


def test_an_upload_hides_no_scan_under_the_root(client, phantom, other_scan):
    mask = infer(client, "scan", place_in(phantom)).content
    assert upload(client, other_scan, "scan").status_code == 409
    assert infer(client, "scan", place_in(phantom)).content == mask


def test_an_upload_with_every_click_is_one_session(two, root, phantom, other_scan):
    """As MITK sends it: more clicks than there may be sessions."""
    one, other = two
    scan = (root / "scan.nii.gz").read_bytes()
    for _ in range(3):
        assert infer(one, "", place_in(phantom), file=("a.nii.gz", scan)).status_code == 200
    assert one.get("/api/health").json()["sessions"] == 1
    assert infer(other, "", place_in(phantom), file=("a.nii.gz", scan)).status_code == 200
    assert infer(one, "", place_in(phantom), file=("a.nii.gz", other_scan)).status_code == 200
    assert one.get("/api/health").json()["sessions"] == 3


def test_names_survive_the_process(make_client, root, phantom):
    client = make_client()
    upload(client, (root / "scan.nii.gz").read_bytes(), "x")
    mask = infer(client, "x", place_in(phantom)).content
    client.__exit__(None, None, None)
    assert infer(make_client(), "x", place_in(phantom)).content == mask
