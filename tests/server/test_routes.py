import gzip
import json
import threading
import time

import nibabel
import numpy as np
import pytest

from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.interactive.session import InteractiveSession
from clickvol.io.formats import read_volume
from clickvol.io.nifti.files import read_stored
from clickvol.predict.scan_predictor import ScanPredictor, segment
from clickvol.prompts.click import Click


def stored(reply, tmp_path, name="answer.nii.gz"):
    assert reply.status_code == 200, reply.text
    (tmp_path / name).write_bytes(reply.content)
    return read_stored(tmp_path / name)


def test_a_new_session_describes_its_scan(client, opened, phantom):
    known, scan = opened.known, opened.known["scan"]
    assert scan["shape_ijk"] == [44, 40, 16]
    assert scan["spacing_ijk_mm"] == pytest.approx([1.5, 1.5, 3.3])
    low, high = phantom.volume.grid.extent_ras_mm()
    assert scan["extent_ras_mm"]["low"] == pytest.approx([low.x, low.y, low.z])
    assert scan["extent_ras_mm"]["high"] == pytest.approx([high.x, high.y, high.z])
    assert scan["is_dicom"] is False
    assert scan["modality"] == "CT"  # NIfTI does not say it; the values do
    assert (known["model_id"], known["lease_seconds"], known["resumable"]) == ("random", 1800, [])
    assert [o["id"] for o in known["state"]["objects"]] == [1]
    assert len(opened.id) >= 32
    assert client.get("/api/health").json() == {
        "status": "ok",
        "version": client.get("/api/start").json()["version"],
        "sessions": 1,
        "queue": 0,
    }


def test_a_click_gives_what_the_session_gives(opened, root, tiny_model, inside_ras_mm, tmp_path):
    session = InteractiveSession(tiny_model)
    session.set_volume(read_volume(root / "scan.nii.gz"))
    expected = session.click(WorldPointRAS(*inside_ras_mm))
    reply = opened.click(inside_ras_mm)
    assert reply.status_code == 200
    answer = reply.json()["answer"]
    assert answer["num_voxels"] == expected.num_voxels > 0
    assert answer["volume_ml"] == pytest.approx(expected.volume_ml)
    known = reply.json()["state"]["objects"][0]
    assert known["clicks"] == [{"ras_mm": pytest.approx(inside_ras_mm), "positive": True, "place": 0}]
    mask = stored(opened.get("mask.nii.gz?object_id=1"), tmp_path)
    assert np.array_equal(mask.array, session.mask(1).array)
    assert np.allclose(mask.grid.affine_ras_mm, session.mask(1).grid.affine_ras_mm)
    probability = stored(opened.get("probability.nii.gz"), tmp_path)
    assert np.array_equal(probability.array, session.probability())


def test_the_spaces_of_a_click_mean_the_same_place(opened, phantom, inside_ras_mm):
    x, y, z = inside_ras_mm
    for position, space in (
        ([x, y, z], "ras"),
        ([-x, -y, z], "lps"),
        (list(phantom.inside.to_ijk()), "ijk"),
    ):
        objects = opened.click(position, space=space).json()["state"]["objects"]
        assert objects[0]["clicks"][-1]["ras_mm"] == pytest.approx(inside_ras_mm)


def test_steps_and_their_states(opened, inside_ras_mm):
    first = opened.click(inside_ras_mm).json()["state"]
    assert (first["can_undo"], first["can_redo"]) == (True, False)
    undone = opened.post("undo").json()["state"]
    assert undone["objects"][0]["clicks"] == []
    assert undone["can_redo"] is True
    assert opened.post("undo").json()["state"] == undone  # there was nothing to undo
    redone = opened.post("redo").json()["state"]
    assert redone == first
    assert first["tag"] != undone["tag"]
    added = opened.post("objects", name="node").json()
    assert added["object_id"] == 2
    assert [o["name"] for o in added["state"]["objects"]] == ["", "node"]
    frozen = opened.client.patch(f"{opened.url}/objects/1", json={"frozen": True}).json()
    assert frozen["state"]["objects"][0]["frozen"] is True
    refused = opened.click(inside_ras_mm)
    assert refused.status_code == 422
    assert "frozen" in refused.json()["error"]
    reset = opened.post("reset").json()["state"]
    assert [o["id"] for o in reset["objects"]] == [1]
    assert opened.state() == {**reset, "busy": False}


def test_a_click_outside_names_the_valid_range_and_changes_nothing(opened, phantom):
    before = opened.state()
    low, high = phantom.volume.grid.extent_ras_mm()
    reply = opened.click([high.x + 10, 0, 0])
    assert reply.status_code == 422
    assert f"x {low.x:.1f}..{high.x:.1f}" in reply.json()["error"]
    reply = opened.click([44, 0, 0], space="ijk")
    assert "i 0..43, j 0..39, k 0..15" in reply.json()["error"]
    assert opened.state() == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 10_000,
        b'{"position": [NaN, 0, 0]}',
        b'{"position": [1e999, 0, 0]}',
        b'{"position": [1, 2]}',
        b'{"position": "abc"}',
        b'{"position": [1, 2, 3], "space": "voxels"}',
        b'{"position": [1, 2, 3], "object_id": 0}',
        b'{"position": [1, 2, 3], "object_id": 99}',
        b'{"position": [1, 2, 3], "unknown": 1}',
        b'{"position": [1, 2, 3], "object_id": ' + b"9" * 5000 + b"}",
        b'{"name": "\\ud800"}',
        b"\xff\xfe",
    ],
)
def test_malformed_clicks_are_told_so_in_one_line(opened, body):
    headers = {"content-type": "application/json"}
    reply = opened.client.post(f"{opened.url}/clicks", content=body, headers=headers)
    assert reply.status_code in (400, 422)
    assert set(reply.json()) == {"error", "detail"}
    assert "\n" not in reply.json()["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("../scan.nii.gz", 403),
        ("/etc/passwd", 403),
        ("not-there.nii.gz", 404),
        ("", 422),
        ("broken.nii.gz", 422),
    ],
)
def test_paths_that_are_no_scans(client, root, path, status):
    (root / "broken.nii.gz").write_bytes(b"\x1f\x8b and nothing")
    reply = client.post("/api/sessions", json={"path": path})
    assert reply.status_code == status
    assert str(root) not in reply.json()["error"]
    assert client.get("/api/health").json()["sessions"] == 0


def test_an_upload_is_a_scan_too(client, root, phantom, inside_ras_mm, tmp_path, open_on):
    file = {"scan": ("Meier_Hans.nii.gz", (root / "scan.nii.gz").read_bytes())}
    reply = client.post("/api/sessions", files=file, data={"modality": "CT"})
    assert reply.status_code == 201
    url = f"/api/sessions/{reply.json()['session_id']}"
    uploaded = client.post(f"{url}/clicks", json={"position": inside_ras_mm}).json()["answer"]
    by_path = open_on(client).click(inside_ras_mm).json()["answer"]
    assert uploaded["num_voxels"] == by_path["num_voxels"]
    kept = [p.name for p in (tmp_path / "state").rglob("*") if p.is_file()]
    assert "scan.nii.gz" in kept
    assert not [name for name in kept if "Meier" in name]
    copy = stored(client.get(f"{url}/scan.nii.gz"), tmp_path)
    assert np.array_equal(copy.array, phantom.volume.array)


@pytest.mark.parametrize("upload", [False, True])
def test_another_scan_has_a_scale_of_its_own(client, root, tiny_model, inside_ras_mm, upload):
    if upload:
        file = {"scan": ("a.nii.gz", (root / "scan.nii.gz").read_bytes())}
        reply = client.post("/api/sessions", files=file, data={"modality": "other"})
    else:
        reply = client.post("/api/sessions", json={"path": "scan.nii.gz", "modality": "other"})
    assert reply.status_code == 201
    url = f"/api/sessions/{reply.json()['session_id']}"
    answer = client.post(f"{url}/clicks", json={"position": inside_ras_mm}).json()["answer"]
    volume, clicks = read_volume(root / "scan.nii.gz"), [Click(WorldPointRAS(*inside_ras_mm))]
    wanted = segment(volume, clicks, tiny_model, modality="other")
    assert wanted.modality == "other"
    assert answer["num_voxels"] == wanted.mask.num_voxels


def test_a_scan_without_orientation_is_shown_where_it_is_read(client, phantom):
    voxels = phantom.volume.array.transpose(2, 1, 0).astype("<i2")
    header = nibabel.Nifti1Header()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype("<i2")
    header["pixdim"][1:4] = [2, 2, 3]
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = header.binaryblock + b"\0" * 4 + voxels.tobytes(order="F")
    reply = client.post("/api/sessions", files={"scan": ("a.nii", content)}, data={"modality": "CT"})
    url = f"/api/sessions/{reply.json()['session_id']}"
    inside = phantom.inside.as_array()[::-1].tolist()
    client.post(f"{url}/clicks", json={"position": inside, "space": "ijk"})
    expected = nibabel.Nifti1Image.from_bytes(content).affine
    for name in ("scan", "mask", "probability"):
        sent = nibabel.Nifti1Image.from_bytes(gzip.decompress(client.get(f"{url}/{name}.nii.gz").content))
        assert (int(sent.header["sform_code"]), int(sent.header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(sent.get_sform(), expected)
        np.testing.assert_allclose(sent.get_qform(), expected, atol=1e-5)


def wait_until_empty(folder):
    """What is left of a session that ended is deleted after what is being computed for it."""
    deadline = time.monotonic() + 20
    while list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "data", "status"),
    [
        ({"scan": ("a.exe", b"x")}, {}, 415),
        ({"scan": ("a.mhd", b"ElementDataFile = /etc/passwd\n")}, {}, 415),
        ({"scan": ("a.mha", b"NDims = 3\nElementDataFile = /etc/passwd\n")}, {}, 422),
        ({"scan": ("a.nrrd", b"NRRD0004\ndata file: /etc/passwd\n\n")}, {}, 422),
        ({"scan": ("a.nii", b"x")}, {"modality": "US"}, 422),
        ({"other": ("a.nii", b"x")}, {}, 422),
        ({"scan": ("", b"x")}, {}, 422),
    ],
)
def test_uploads_that_are_no_scans(client, files, data, status, tmp_path):
    reply = client.post("/api/sessions", files=files, data=data)
    assert reply.status_code == status
    assert set(reply.json()) == {"error", "detail"}
    assert str(tmp_path) not in reply.json()["error"]
    wait_until_empty(tmp_path / "state" / "open")


def test_a_small_file_that_promises_a_huge_one_is_refused(client):
    header = nibabel.Nifti1Header()
    header.set_data_shape((3000, 3000, 3000))
    header.set_data_dtype(np.int16)
    content = gzip.compress(header.binaryblock + b"\0" * 100_000)
    assert len(content) < 10_000
    reply = client.post("/api/sessions", files={"scan": ("a.nii.gz", content)})
    assert reply.status_code in (413, 422)
    assert reply.json()["error"].startswith("scan.nii.gz ")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(make_client):
    header = nibabel.Nifti1Header()
    header.set_data_shape((200, 200, 200))
    header.set_data_dtype(np.uint8)
    content = gzip.compress(header.binaryblock + b"\0" * (4 + 8_000_000))
    assert len(content) < 20_000
    client = make_client(max_voxels=7_999_999)
    reply = client.post("/api/sessions", files={"scan": ("a.nii.gz", content)})
    assert reply.status_code == 413
    assert "8000000 voxels, but at most 7999999" in reply.json()["error"]


def test_the_limit_of_voxels_is_exact(make_client, open_on):
    num_voxels = 16 * 40 * 44
    assert open_on(make_client(max_voxels=num_voxels)).reply.status_code == 201


def test_one_voxel_more_is_refused(make_client):
    client = make_client(max_voxels=16 * 40 * 44 - 1)
    reply = client.post("/api/sessions", json={"path": "scan.nii.gz"})
    assert reply.status_code == 413
    assert "at most 28159 are allowed" in reply.json()["error"]


def test_the_mask_is_not_sent_twice(opened, inside_ras_mm):
    opened.click(inside_ras_mm)
    first = opened.get("mask.nii.gz")
    tag = first.headers["etag"]
    again = opened.get("mask.nii.gz", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    opened.post("undo")
    changed = opened.get("mask.nii.gz", headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    opened.post("redo")  # the same interactions, the same mask
    assert opened.get("mask.nii.gz", headers={"if-none-match": tag}).status_code == 304


def test_masks_of_objects_that_are_not_there(opened):
    assert opened.get("mask.nii.gz?object_id=2").status_code == 422
    assert opened.get("probability.nii.gz?object_id=2").status_code == 422
    assert opened.client.patch(f"{opened.url}/objects/7", json={"frozen": True}).status_code == 422


@pytest.mark.parametrize(("file_format", "suffix"), [("nifti", ".nii.gz"), ("nrrd", ".nrrd")])
def test_export_holds_the_label_map(opened, phantom, inside_ras_mm, tmp_path, file_format, suffix):
    opened.click(inside_ras_mm)
    opened.post("objects", name="second")
    opened.click(inside_ras_mm, object_id=2)
    reply = opened.get(f"export?format={file_format}")
    assert reply.headers["content-disposition"] == f'attachment; filename="clickvol-mask{suffix}"'
    (tmp_path / f"saved{suffix}").write_bytes(reply.content)
    saved = read_volume(tmp_path / f"saved{suffix}")
    shown = stored(opened.get("mask.nii.gz"), tmp_path)
    assert np.array_equal(saved.array, shown.array)
    assert saved.array.max() == 2
    assert np.allclose(saved.grid.affine_ras_mm, phantom.volume.grid.affine_ras_mm, atol=1e-4)


@pytest.mark.parametrize("file_format", ["dicom-seg", "rtstruct"])
def test_dicom_needs_a_dicom_scan(opened, file_format):
    reply = opened.get(f"export?format={file_format}")
    assert reply.status_code == 409
    assert "NIfTI" in reply.json()["error"]


def test_a_full_disk_while_saving_is_said_and_leaves_nothing(opened, inside_ras_mm, monkeypatch, tmp_path):
    opened.click(inside_ras_mm)
    before = opened.get("export").content

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("clickvol.io.nifti.files.write_nifti", full)
        reply = opened.get("export")
    assert reply.status_code == 507
    assert "disk is full" in reply.json()["error"]
    assert str(tmp_path) not in reply.json()["error"]
    assert not list((tmp_path / "state").rglob("work-*"))
    assert opened.get("export").content == before


def test_a_full_disk_while_uploading(client, root, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clickvol.server.scans.shutil.copyfileobj", full)
    file = {"scan": ("a.nii.gz", (root / "scan.nii.gz").read_bytes())}
    assert client.post("/api/sessions", files=file).status_code == 507
    wait_until_empty(tmp_path / "state" / "open")


def test_a_full_disk_while_clicking_changes_nothing(opened, inside_ras_mm, monkeypatch):
    before = opened.state()
    with monkeypatch.context() as patched:
        patched.setattr("clickvol.interactive.record.os.write", lambda *_: 0)
        reply = opened.click(inside_ras_mm)
    assert reply.status_code == 507
    assert opened.state() == before
    assert opened.click(inside_ras_mm).status_code == 200


def test_a_session_that_was_closed_is_gone(opened, inside_ras_mm):
    assert opened.client.delete(opened.url).status_code == 204
    assert opened.client.delete(opened.url).status_code == 404
    for reply in (opened.click(inside_ras_mm), opened.get("mask.nii.gz"), opened.post("heartbeat")):
        assert reply.status_code == 404
        assert "open the scan again" in reply.json()["error"]


def test_closing_a_session_stops_its_click(opened, inside_ras_mm, monkeypatch, tmp_path, logged_kinds):
    """The click waits at its first look, until the session is closed; then it is cancelled."""
    begun = threading.Event()
    predict = ScanPredictor.predict

    def slow(scan, clicks, *, cancelled, **words):
        begun.set()
        deadline = time.monotonic() + 20
        while not cancelled() and time.monotonic() < deadline:
            time.sleep(0.01)
        return predict(scan, clicks, cancelled=cancelled, **words)

    monkeypatch.setattr(ScanPredictor, "predict", slow)
    replies = []
    thread = threading.Thread(target=lambda: replies.append(opened.click(inside_ras_mm)))
    thread.start()
    assert begun.wait(20)
    assert opened.state()["busy"] is True
    assert opened.client.delete(opened.url).status_code == 204
    thread.join()
    assert replies[0].status_code == 404
    wait_until_empty(tmp_path / "state" / "open")
    (kinds,) = logged_kinds().values()
    assert kinds == ["clickvol-session", "click", "cancelled"]


def test_sessions_have_an_end(make_client, open_on, monkeypatch):
    client = make_client(lease_seconds=60)
    opened = open_on(client)
    now = time.time()
    monkeypatch.setattr("clickvol.server.sessions.time.time", lambda: now + 59)
    assert opened.post("heartbeat").json() == {"lease_seconds": 60}
    monkeypatch.setattr("clickvol.server.sessions.time.time", lambda: now + 118)
    assert opened.post("heartbeat").status_code == 200
    monkeypatch.setattr("clickvol.server.sessions.time.time", lambda: now + 179)
    assert opened.post("heartbeat").status_code == 404


def test_what_is_left_of_a_session_is_deleted_unasked(make_client, open_on, monkeypatch, tmp_path):
    monkeypatch.setattr("clickvol.server.app._SWEEP_SECONDS", 0.01)
    open_on(make_client(lease_seconds=60))
    now = time.time()
    monkeypatch.setattr("clickvol.server.sessions.time.time", lambda: now + 61)
    wait_until_empty(tmp_path / "state" / "open")


def test_no_more_sessions_than_allowed(make_client, open_on):
    client = make_client(max_leases=2)
    first, _ = open_on(client), open_on(client)
    reply = client.post("/api/sessions", json={"path": "scan.nii.gz"})
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "60"
    client.delete(first.url)
    assert open_on(client).reply.status_code == 201


def test_the_model_and_the_document(client):
    card = client.get("/api/model").json()
    assert card["id"] == "random"
    assert card["use"] == "research use, not a medical device"
    document = client.get("/openapi.json").json()
    assert "/api/sessions/{session_id}/clicks" in document["paths"]
    assert "422" in document["paths"]["/api/sessions/{session_id}/clicks"]["post"]["responses"]
    assert "http" not in json.dumps(document["paths"])


def test_the_start_of_the_viewer(make_client, root):
    client = make_client(start_path=root / "scan.nii.gz")
    path = client.get("/api/start").json()["path"]
    assert client.post("/api/sessions", json={"path": path}).status_code == 201
