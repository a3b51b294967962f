"""Labels stay, every version of them, and lie on their image; the next sample; 3D Slicer's token."""

import json

import numpy as np
import pytest
import SimpleITK
from starlette.testclient import TestClient

from clickvol.io.formats import read_volume, write_volume
from clickvol.phantoms.phantom import make_phantom

ADDRESS = "http://127.0.0.1:8000"
TOKEN = "a-token-of-24-characters"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "labels"


@pytest.fixture
def client(make_client, folder):
    return make_client(labels=folder)


@pytest.fixture
def label(root, tmp_path):
    """Two values on the grid of the scan, as the bytes of a file."""
    volume = read_volume(root / "scan.nii.gz")
    array = np.zeros(volume.array.shape, np.uint8)
    array[2:5, 3:9, 4:10] = 1
    array[6:9, 3:9, 4:10] = 2
    write_volume(array, volume.grid, tmp_path / "label.nii.gz")
    return (tmp_path / "label.nii.gz").read_bytes()


def save(client, content, image="scan", name="label.nii.gz", tag="", **params):
    files = {"label": (name, content), "params": (None, json.dumps(params))}
    return client.put(f"/datastore/label?image={image}&tag={tag}", files=files)


def fetched(client, tmp_path, image="scan", tag=""):
    reply = client.get(f"/datastore/label?label={image}&tag={tag}")
    assert reply.status_code == 200, reply.text
    (tmp_path / "fetched.nii.gz").write_bytes(reply.content)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "fetched.nii.gz")))


def test_a_label_is_saved_and_fetched(client, root, label, folder, tmp_path):
    info = [{"name": "tumour", "idx": 1}, {"name": "node", "idx": 2}]
    assert save(client, label, label_info=info).json() == {"image": "scan", "label": "scan"}
    array = fetched(client, tmp_path)
    assert np.array_equal(array, read_volume(tmp_path / "label.nii.gz").array)
    assert read_volume(tmp_path / "fetched.nii.gz").grid.same_place(read_volume(root / "scan.nii.gz").grid)
    reply = client.get("/datastore/label?label=scan")
    assert 'filename="scan.nii.gz"' in reply.headers["content-disposition"]
    assert client.get("/datastore/label/info?label=scan").json()["label_info"] == info
    assert client.get("/datastore/").json()["completed"] == 1
    known = client.get("/datastore/?output=all").json()["objects"]["scan"]["labels"]
    assert (list(known), known["final"]["ext"]) == (["final"], ".nii.gz")
    assert sorted(p.name for p in (folder / "scan").iterdir()) == ["final-0001.json", "final-0001.nii.gz"]
    assert sorted(p.name for p in root.iterdir()) == ["scan.nii.gz"]


def test_every_version_stays_and_the_last_one_is_fetched(client, root, label, folder, tmp_path):
    volume = read_volume(root / "scan.nii.gz")
    save(client, label)
    write_volume((volume.array > 0).astype(np.uint8), volume.grid, tmp_path / "second.nii.gz")
    save(client, (tmp_path / "second.nii.gz").read_bytes())
    assert np.array_equal(fetched(client, tmp_path), volume.array > 0)
    save(client, label, tag="original")
    assert np.array_equal(
        fetched(client, tmp_path, tag="original"), read_volume(tmp_path / "label.nii.gz").array
    )
    assert client.delete("/datastore/label?id=scan").status_code == 200
    assert client.get("/datastore/label?label=scan").status_code == 404
    assert client.delete("/datastore/label?id=scan").status_code == 404
    first = read_volume(folder / "scan" / "final-0001.nii.gz").array
    assert np.array_equal(first, read_volume(tmp_path / "label.nii.gz").array)
    save(client, label)
    names = sorted(p.name for p in (folder / "scan").glob("final*.nii.gz"))
    assert names == ["final-0001.nii.gz", "final-0002.nii.gz", "final-0004.nii.gz"]
    assert np.array_equal(fetched(client, tmp_path), first)


@pytest.mark.parametrize("dtype", ["<u1", "<u2"])
def test_ohif_sends_voxels_alone(client, tmp_path, label, dtype):
    array = read_volume(tmp_path / "label.nii.gz").array
    assert save(client, array.astype(dtype).tobytes(), name="label.bin").status_code == 200
    assert np.array_equal(fetched(client, tmp_path), array)


def test_what_cannot_be_a_label(client, root, folder, tmp_path, label):
    volume = read_volume(root / "scan.nii.gz")
    other = make_phantom(4, shape_dhw=(16, 40, 40)).volume
    write_volume((other.array > 0).astype(np.uint8), other.grid, tmp_path / "other.nii.gz")
    write_volume(volume.array.astype(np.float32) + 0.5, volume.grid, tmp_path / "halves.nii.gz")
    for content, words, status, problem in (
        (b"nothing", {}, 422, ""),
        ((tmp_path / "other.nii.gz").read_bytes(), {}, 422, "does not lie on its image"),
        ((tmp_path / "halves.nii.gz").read_bytes(), {}, 422, "whole numbers"),
        (b"\0" * 7, {"name": "label.bin"}, 422, "7 bytes"),
        (label, {"name": "label.exe"}, 415, ""),
        (label, {"image": "not-there"}, 404, ""),
        (label, {"image": "../scan"}, 404, ""),
        (label, {"tag": "../x"}, 422, "no tag"),
    ):
        reply = save(client, content, **words)
        assert (reply.status_code, problem in reply.json()["error"]) == (status, True), (words, reply.text)
    assert list(folder.rglob("*.nii.gz")) == []


def test_a_server_that_was_not_told_where_keeps_no_labels(make_client, label):
    client = make_client()
    for reply in (save(client, label), client.get("/datastore/label?label=scan")):
        assert (reply.status_code, "--labels" in reply.json()["error"]) == (403, True)


def test_uploads_of_one_name_do_not_share_labels(client, root, label, tmp_path, folder):
    other_client = TestClient(client.app, base_url=ADDRESS, client=("192.0.2.7", 50000))
    volume = make_phantom(4, shape_dhw=(16, 40, 44)).volume
    write_volume(volume.array, volume.grid, tmp_path / "other.nii.gz")
    for one, content in (
        (client, (root / "scan.nii.gz").read_bytes()),
        (other_client, (tmp_path / "other.nii.gz").read_bytes()),
    ):
        assert one.put("/datastore/", files={"file": ("a/Mine.nii.gz", content)}).json() == {"image": "Mine"}
        assert "Mine" in one.get("/datastore/?output=list").json()
    assert save(client, label, image="Mine").status_code == 200
    assert fetched(client, tmp_path, "Mine").any()
    assert other_client.get("/datastore/label?label=Mine").status_code == 404
    assert client.delete("/datastore/?id=Mine").status_code == 200
    assert "Mine" not in client.get("/datastore/?output=list").json()
    assert len(list(folder.rglob("*.nii.gz"))) == 1


def test_what_is_said_of_labels_and_images(client, label):
    save(client, label)
    said = {"info": json.dumps({"quality": "good"})}
    assert client.put("/datastore/label/info?label=scan", data=said).status_code == 200
    assert client.get("/datastore/label/info?label=scan").json()["quality"] == "good"
    assert client.get("/datastore/image/info?image=scan").json() == {}
    assert client.put("/datastore/image/info?image=scan", data=said).status_code == 200
    assert client.get("/datastore/image/info?image=scan").json()["quality"] == "good"
    assert client.get("/datastore/image/info?image=none").status_code == 404


@pytest.fixture
def three(root, phantom):
    for name in ("a", "b"):
        write_volume(phantom.volume.array, phantom.volume.grid, root / f"{name}.nii.gz")


def next_of(client, strategy="first"):
    return client.post(f"/activelearning/{strategy}", json={"client_id": "x"}).json()


def test_the_next_sample_is_one_without_a_final_label(client, three, label, tmp_path):
    assert [next_of(client)["id"] for _ in range(4)] == ["a", "b", "scan", "a"]
    save(client, label, image="a")
    save(client, label, image="b", tag="original")
    assert {next_of(client, "random")["id"] for _ in range(6)} <= {"b", "scan"}
    sample = next_of(client)
    assert sample["name"] == f"{sample['id']}.nii.gz"
    assert client.get(f"/datastore/image?image={sample['id']}").status_code == 200
    for image in ("b", "scan"):
        save(client, label, image=image)
    assert next_of(client) == {}
    assert client.post("/activelearning/other", json={}).status_code == 422


def test_two_people_are_not_offered_the_same(client, three):
    other = TestClient(client.app, base_url=ADDRESS, client=("192.0.2.7", 50000))
    offered = [next_of(one, "random")["id"] for one in (client, other, client)]
    assert sorted(offered) == ["a", "b", "scan"]
    assert next_of(other)["id"] == offered[1]


def test_slicer_gets_its_token_for_a_password(make_client):
    client = make_client(token=TOKEN)
    assert client.get("/auth/").json() == {"enabled": True}
    assert client.get("/auth/token/valid").status_code == 401
    asked = {"username": "anyone", "password": TOKEN, "grant_type": "password"}
    reply = client.post("/auth/token", data=asked)
    assert reply.json() == {"access_token": TOKEN, "token_type": "bearer"}
    assert reply.headers["cache-control"] == "no-store"
    # As the client sends it then, in lower case.
    known = {"Authorization": f"bearer {reply.json()['access_token']}"}
    assert client.get("/auth/token/valid", headers=known).status_code == 200
    assert client.get("/info/", headers=known).status_code == 200
    assert make_client().get("/auth/").json() == {"enabled": False}


def test_slicers_client_with_a_token_sends_the_boundary_of_its_last_request(client, root):
    """It keeps one dictionary of headers, into which each request writes."""
    stale = {"content-type": "multipart/form-data; boundary=----------lImIt_of_THE_fIle_eW_$"}
    files = {"files": ("scan.nii.gz", (root / "scan.nii.gz").read_bytes())}
    prepared = client.build_request("PUT", "/session/", files=files)
    body = prepared.read()
    for content in (body, (body[n : n + 7] for n in range(0, len(body), 7))):
        reply = client.put("/session/", content=content, headers=stale)
        assert reply.status_code == 200, reply.text
    assert client.put("/session/", content=b"--\r\nnothing", headers=stale).status_code == 400


def test_wrong_passwords_are_refused_and_soon_wait(make_client):
    client = make_client(token=TOKEN)
    statuses = [
        client.post("/auth/token", data={"username": "x", "password": f"guess{n}"}).status_code
        for n in range(40)
    ]
    assert set(statuses) == {401, 429}
    assert client.post("/auth/token", data={"username": "x", "password": TOKEN}).status_code == 429
    assert client.post("/auth/token", content=b"no form").status_code in (401, 422, 429)
