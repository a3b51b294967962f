"""When a lease is over, in every protocol: what the client is told, and that using it puts the end off."""

import gzip
import json
import time

import numpy as np
import pytest

from clickvol.server.nninteractive.packed_array import pack_array

SHAPE = (16, 40, 44)
LEASE_SECONDS = 60


def open_api(client, scan):
    session_id = client.post("/api/sessions", json={"path": "scan.nii.gz"}).json()["session_id"]
    return lambda: client.post(f"/api/sessions/{session_id}/undo")


def open_monai(client, scan):
    files = {"files": ("a.nii.gz", scan.read_bytes())}
    session_id = client.put("/session/", files=files).json()["session_id"]
    return lambda: client.get(f"/session/{session_id}")


def open_nninteractive(client, scan):
    headers = {"X-Lease-Token": client.post("/claim").json()["lease_token"]}
    packed = {**headers, "content-type": "application/octet-stream"}
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(1, *SHAPE)
    assert client.post("/set_image", content=pack_array(array), headers=packed).status_code == 200
    return lambda: client.post("/undo", headers=headers)


def open_itk_snap(client, scan):
    session_id = client.get("/start_session").json()["session_id"]
    files = {
        "file": ("image.gz", gzip.compress(np.arange(np.prod(SHAPE), dtype="<f4").tobytes())),
        "metadata": ("metadata.json", json.dumps({"dimensions": SHAPE[::-1]})),
    }
    assert client.post(f"/upload_raw/{session_id}", files=files).status_code == 200
    return lambda: client.get(f"/reset_interactions/{session_id}")


@pytest.mark.parametrize(
    ("begin", "status"),
    [(open_api, 404), (open_monai, 404), (open_nninteractive, 410), (open_itk_snap, 404)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_lease_that_is_used_goes_on_and_an_unused_one_ends(
    make_client, root, monkeypatch, begin, status, tmp_path
):
    client = make_client(lease_seconds=LEASE_SECONDS)
    use = begin(client, root / "scan.nii.gz")
    now = time.time()
    for later in (LEASE_SECONDS - 1, 2 * LEASE_SECONDS - 2, 3 * LEASE_SECONDS - 3):
        monkeypatch.setattr("clickvol.server.sessions.time.time", lambda at=now + later: at)
        assert use().status_code == 200
    monkeypatch.setattr("clickvol.server.sessions.time.time", lambda: now + 4 * LEASE_SECONDS)
    assert client.get("/api/health").json()["sessions"] == 1  # nobody has asked for it yet
    ended = use()
    assert ended.status_code == status
    assert "over" in ended.json()["detail"]
    assert client.get("/api/health").json()["sessions"] == 0
    assert use().status_code == status
    client.__exit__(None, None, None)
    assert list((tmp_path / "state" / "open").iterdir()) == []


def test_a_heartbeat_of_nninteractive_says_what_remains_and_puts_nothing_off(make_client, root, monkeypatch):
    client = make_client(lease_seconds=LEASE_SECONDS)
    headers = {"X-Lease-Token": client.post("/claim").json()["lease_token"]}
    now = time.time()
    for later, remaining in ((20, 40), (50, 10)):
        monkeypatch.setattr("clickvol.server.sessions.time.time", lambda at=now + later: at)
        known = client.post("/heartbeat", headers=headers).json()["remaining_seconds"]
        assert known == pytest.approx(remaining, abs=5)
    monkeypatch.setattr("clickvol.server.sessions.time.time", lambda: now + 66)
    assert client.post("/heartbeat", headers=headers).status_code == 410
