"""The requests of ITK-SNAP, as their description has them."""

import base64
import gzip
import json

import numpy as np
import pytest

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.volume import Volume
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.prompts.click import Click


def form(array, grid):
    lps = grid.affine_ijk_lps_mm
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    known = {
        "dimensions": array.shape[::-1],
        "spacing": spacing.tolist(),
        "origin": lps[:3, 3].tolist(),
        "direction": (lps[:3, :3] / spacing).reshape(-1).tolist(),
        "components_per_pixel": 1,
        "component_type": "float32",
    }
    content = gzip.compress(array.astype("<f4").tobytes())
    return {
        "file": ("image.gz", content, "application/gzip"),
        "metadata": ("metadata.json", json.dumps(known), "application/json"),
    }


def mask_of(reply, shape):
    assert reply.status_code == 200, reply.text
    assert reply.json()["status"] == "success"
    data = gzip.decompress(base64.b64decode(reply.json()["result"]))
    return np.frombuffer(data, np.int8).reshape(shape)


@pytest.fixture
def started(client, phantom):
    volume = phantom.volume
    session_id = client.get("/v2/start_session/clickvol").json()["session_id"]
    url = f"/v2/upload_raw/{session_id}?filename=upload.nii.gz"
    sent = client.post(url, files=form(volume.array, volume.grid))
    assert sent.status_code == 200, sent.text
    return session_id


def test_what_is_asked_before_a_session(client):
    assert client.get("/status").json() == {"status": "ok", "version": "0.1.2"}
    (model,) = client.get("/v2/models").json()["models"]
    assert model["id"] == "clickvol"
    assert client.get("/v2/start_session/other").status_code == 404


def test_clicks_equal_those_of_the_package(client, started, phantom, tiny_model):
    volume, inside = phantom.volume, phantom.inside
    scan = Volume(volume.array.astype(np.float32), volume.grid, "unknown")
    place = VoxelPoint(round(inside.d), round(inside.h), round(inside.w))
    expected = ScanPredictor(scan, tiny_model).predict([Click(place, True)]).mask.array
    d, h, w = map(int, (place.d, place.h, place.w))
    url = f"/v2/process_point_interaction/{started}?point={w}&point={h}&point={d}&foreground=true"
    assert np.array_equal(mask_of(client.get(url), expected.shape), expected)
    assert client.get(f"/reset_interactions/{started}").json() == {"status": "success"}
    url = f"/process_point_interaction/{started}?x={w}&y={h}&z={d}&foreground=true"
    assert np.array_equal(mask_of(client.get(url), expected.shape), expected)
    assert expected[d, h, w] == 1


def test_a_lasso_and_the_end(client, started, phantom):
    volume, inside = phantom.volume, phantom.inside
    d, h, w = round(inside.d), round(inside.h), round(inside.w)
    drawn = np.zeros(volume.array.shape, np.float32)
    drawn[d, h - 3 : h + 4, w - 3 : w + 4] = 1
    for kind in ("lasso", "scribble"):
        client.get(f"/v2/reset_interactions/{started}")
        reply = client.post(
            f"/process_{kind}_interaction/{started}?foreground=true", files=form(drawn, volume.grid)
        )
        assert mask_of(reply, drawn.shape)[d, h, w] == 1
    assert client.get(f"/v2/end_session/{started}").status_code == 200
    assert client.get(f"/end_session/{started}").status_code == 404


def test_what_cannot_be_used_is_refused(client, started, phantom):
    volume = phantom.volume
    assert client.get(f"/v2/process_point_interaction/{started}?point=1&point=2").status_code == 422
    assert client.get(f"/v2/process_point_interaction/{started}?point=99&point=2&point=3").status_code == 422
    short = form(volume.array[1:], volume.grid)
    short["metadata"] = form(volume.array, volume.grid)["metadata"]
    assert client.post(f"/upload_raw/{started}", files=short).status_code == 422
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert client.get(f"/reset_interactions/{started}", headers=foreign).status_code == 403
