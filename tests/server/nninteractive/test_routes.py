"""The real `nninteractive-client` against the server on a real socket."""

import json

import httpx
import numpy as np
import pytest

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import GivenMask
from clickvol.server.app import create_app
from clickvol.server.nninteractive.packed_array import pack_array
from clickvol.server.settings import ServerSettings
from reference.live_server import served

remote = pytest.importorskip(
    "nnInteractive.inference.remote", reason="nninteractive-client is not installed: pip install --no-deps"
)

SPACING = (3.0, 1.5, 1.25)


@pytest.fixture
def serve(tmp_path, tiny_model):
    def start(**changes):
        return served(create_app(tiny_model, ServerSettings(state_folder=tmp_path / "state", **changes)))

    return start


@pytest.fixture
def scan(phantom):
    return phantom.volume.array, phantom.inside


@pytest.fixture
def predictor(scan, tiny_model):
    array, _ = scan
    return ScanPredictor(Volume(array, VolumeGrid.axial(array.shape, SPACING), "unknown"), tiny_model)


@pytest.fixture
def expected(predictor):
    """The mask of clicks (d, h, w, positive) as the package gives it."""

    def mask(*clicks):
        return predictor.predict([Click(VoxelPoint(*map(float, c[:3])), c[3]) for c in clicks]).mask.array

    return mask


def connected(address, array, **words):
    session = remote.nnInteractiveRemoteInferenceSession(address, **words)
    session.set_image(array[None], {"spacing": list(SPACING)})
    target = np.zeros(array.shape, dtype=np.uint8)
    session.set_target_buffer(target)
    return session, target


def test_points_undo_reset_and_prediction_on_demand(serve, scan, expected):
    array, inside = scan
    d, h, w = map(int, (inside.d, inside.h, inside.w))
    first, second, outside = (d, h, w, True), (d, h + 2, w, True), (d, h, w - 3, False)
    with serve() as address:
        session, target = connected(address, array)
        session.add_point_interaction((d, h, w), True)
        assert np.array_equal(target, expected(first))
        assert target.any()
        session.add_point_interaction((d, h, w - 3), False)
        assert np.array_equal(target, expected(first, outside))
        session.undo()
        assert np.array_equal(target, expected(first))
        session.add_point_interaction((d, h + 2, w), True, run_prediction=False)
        assert np.array_equal(target, expected(first))
        session._predict()
        assert np.array_equal(target, expected(first, second))
        session.undo()
        session.undo()
        assert not target.any()
        session.reset_interactions()
        session.add_point_interaction((d, h + 2, w), True)
        assert np.array_equal(target, expected(second))
        session.close()


def test_a_click_outside_first_waits_for_one_inside(serve, scan, expected):
    array, inside = scan
    d, h, w = map(int, (inside.d, inside.h, inside.w))
    with serve() as address:
        session, target = connected(address, array)
        session.add_point_interaction((d, h, w - 3), False)
        assert not target.any()
        session.add_point_interaction((d, h, w), True)
        assert np.array_equal(target, expected((d, h, w, True), (d, h, w - 3, False)))
        session.close()


def test_a_box_a_scribble_and_a_lasso_mark_the_object(serve, scan):
    array, inside = scan
    d, h, w = map(int, (inside.d, inside.h, inside.w))
    line, contour = np.zeros(array.shape, np.uint8), np.zeros(array.shape, np.uint8)
    line[d, h, w - 1 : w + 2] = 1
    contour[d, h - 3 : h + 4, w - 3 : w + 4] = 1
    contour[d, h - 2 : h + 3, w - 2 : w + 3] = 0
    with serve() as address:
        session, target = connected(address, array)
        box = [[d, d + 1], [h - 3, h + 4], [w - 3, w + 4]]
        for draw in (
            lambda: session.add_bbox_interaction(box, True),
            lambda: session.add_scribble_interaction(line, True),
            lambda: session.add_lasso_interaction(contour, True),
        ):
            session.reset_interactions()
            assert not target.any()
            draw()
            assert target[d, h, w] == 1
        session.close()


def test_a_mask_to_begin_with_is_shown_and_corrected(serve, scan, predictor):
    array, inside = scan
    d, h, w = map(int, (inside.d, inside.h, inside.w))
    given = np.zeros(array.shape, np.uint8)
    given[d - 1 : d + 2, h - 2 : h + 3, w - 2 : w + 3] = 1
    with serve() as address:
        session, target = connected(address, array)
        session.add_point_interaction((d, h, w), True)
        session.add_initial_seg_interaction(given)
        assert np.array_equal(target, given)
        session.add_point_interaction((d, h, w - 4), False)
        corrected = Click(VoxelPoint(d, h, w - 4.0), False)
        answer = predictor.predict([GivenMask(PackedMask.of(given)), corrected])
        assert np.array_equal(target, answer.mask.array)
        assert httpx.post(f"{address}/undo", json={}, headers={"X-Lease-Token": "x"}).status_code == 410
        session.close()


def test_two_leases_and_another_image(serve, scan, expected):
    array, inside = scan
    d, h, w = map(int, (inside.d, inside.h, inside.w))
    with serve() as address:
        one, mask = connected(address, array)
        other, other_mask = connected(address, np.roll(array, 2, axis=2))
        one.add_point_interaction((d, h, w), True)
        other.add_point_interaction((d, h, w + 2), True)
        assert np.array_equal(mask, expected((d, h, w, True)))
        other.set_image(array[None], {"spacing": list(SPACING)})
        other_mask = np.zeros(array.shape, np.int16)
        other.set_target_buffer(other_mask)
        other.add_point_interaction((d, h, w), True)
        assert np.array_equal(other_mask, mask)
        one.close()
        other.close()


def lease_of(client):
    reply = client.post("/claim")
    assert reply.status_code == 200
    return {"X-Lease-Token": reply.json()["lease_token"]}


def test_capacity_expiry_and_release(make_client, monkeypatch):
    client = make_client(max_leases=1, lease_seconds=60)
    headers = lease_of(client)
    full = client.post("/claim")
    assert full.status_code == 503
    assert "sessions are open" in full.json()["detail"]
    assert client.post("/heartbeat", headers=headers).json()["remaining_seconds"] <= 60
    assert client.get("/lease_status", headers=headers).json()["idle_timeout_seconds"] == 60
    assert client.post("/release", headers=headers).json() == {"released": True}
    assert client.post("/release", headers=headers).json() == {"released": True}
    gone = client.post("/heartbeat", headers=headers)
    assert gone.status_code == 410
    assert "over" in gone.json()["detail"]


def test_a_lease_lives_through_the_end_of_its_process(make_client, scan):
    array, inside = scan
    client = make_client()
    headers = lease_of(client)
    packed = {**headers, "content-type": "application/octet-stream"}
    meta = {"X-Meta": json.dumps({"image_properties": {"spacing": SPACING}})}
    assert (
        client.post("/set_image", content=pack_array(array[None]), headers={**packed, **meta}).status_code
        == 200
    )
    body = {"coordinates": [inside.d, inside.h, inside.w], "include_interaction": True, "run_prediction": True}
    first = client.post("/add_point_interaction", json=body, headers=headers)
    assert json.loads(first.headers["x-meta"])["bbox"] is not None
    client.__exit__(None, None, None)
    again = make_client()
    undone = again.post("/undo", json={}, headers=headers)
    assert undone.headers["x-meta"].replace('"bbox"', "") == first.headers["x-meta"].replace('"bbox"', "")
    assert again.post("/undo", json={}, headers=headers).headers["x-meta"].startswith('{"ran_prediction":false')


def test_signs_of_a_spacing_do_not_count_and_none_may_be_zero(serve, scan, expected):
    array, inside = scan
    point = (*map(int, (inside.d, inside.h, inside.w)), True)
    with serve() as address:
        session, target = connected(address, array)
        session.set_image(array[None], {"spacing": [-s for s in SPACING]})  # as napari has it
        session.set_target_buffer(target)
        session.add_point_interaction(point[:3], True)
        assert np.array_equal(target, expected(point))
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            session.set_image(array[None], {"spacing": [1.0, 0.0, 1.0]})


def test_a_wrong_token_and_no_image_are_said(make_client):
    client = make_client(token="0123456789abcdef")
    refused = client.post("/claim")
    assert refused.status_code == 401
    assert "token" in refused.json()["detail"]
    assert client.get("/healthz").json() == {"ok": True}
    headers = lease_of_with(client)
    reply = client.post("/add_point_interaction", json={"coordinates": [1, 1, 1]}, headers=headers)
    assert reply.status_code == 409
    assert "no image" in reply.json()["detail"]


def lease_of_with(client):
    client.headers["authorization"] = "Bearer 0123456789abcdef"
    return lease_of(client)
