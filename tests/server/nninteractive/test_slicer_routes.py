"""The requests of SlicerNNInteractive 0.3.2, as its description has them."""

import gzip
import io

import numpy as np
import pytest

from clickvol.server.nninteractive.slicer_routes import read_npy
from clickvol.server.refusal import RefusedError


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def mask_of(reply, shape):
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/octet-stream", reply.text
    bits = np.unpackbits(np.frombuffer(reply.content, np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape)


def send(client, path, array, *, user="", **fields):
    """The header says gzip, and the body is plain."""
    files = {"file": ("volume.npy.gz", gzip.compress(npy(array)), "application/octet-stream")}
    return client.post(f"{user}{path}", files=files, data=fields, headers={"Content-Encoding": "gzip"})


def point(client, place, positive=True, user=""):
    return client.post(f"{user}/add_point_interaction", json={"voxel_coord": place, "positive_click": positive})


@pytest.fixture
def scan(phantom):
    inside = phantom.inside
    return phantom.volume.array, [int(inside.d), int(inside.h), int(inside.w)]


def upload(client, array, user=""):
    return client.post(f"{user}/upload_image", files={"file": ("volume.npy", npy(array))})


def test_an_image_clicks_and_drawings(client, scan):
    array, (d, h, w) = scan
    assert point(client, [d, h, w]).json() == {"status": "error", "message": "No image uploaded"}
    assert upload(client, array).json() == {"status": "ok"}
    assert send(client, "/upload_segment", np.zeros(array.shape, np.uint8)).json() == {"status": "ok"}
    first = mask_of(point(client, [d, h, w]), array.shape)
    assert first[d, h, w] == 1
    more = mask_of(point(client, [d, h, w - 3], positive=False), array.shape)
    assert not np.array_equal(first, more)
    send(client, "/upload_segment", np.zeros(array.shape, np.uint8))
    assert np.array_equal(mask_of(point(client, [d, h, w]), array.shape), first)
    lasso = np.zeros(array.shape, np.uint8)
    lasso[d, h - 3 : h + 4, w - 3 : w + 4] = 1
    send(client, "/upload_segment", np.zeros(array.shape, np.uint8))
    reply = send(client, "/add_lasso_interaction", lasso, positive_click="True")
    assert mask_of(reply, array.shape)[d, h, w] == 1
    box = {"outer_point_one": [d, h + 4, w - 4], "outer_point_two": [d, h - 4, w + 4], "positive_click": True}
    send(client, "/upload_segment", np.zeros(array.shape, np.uint8))
    assert mask_of(client.post("/add_bbox_interaction", json=box), array.shape)[d, h, w] == 1


def test_a_click_outside_is_said_and_the_server_goes_on(client, scan):
    array, place = scan
    upload(client, array)
    refused = point(client, [99, 0, 0]).json()
    assert refused["status"] == "error"
    assert "outside" in refused["message"]
    assert point(client, place).status_code == 200


def test_each_user_in_the_path_has_an_image(make_client, scan):
    array, place = scan
    client = make_client()
    upload(client, array, user="/u/ann")
    upload(client, np.flip(array, 2), user="/u/bob")
    ann = mask_of(point(client, place, user="/u/ann"), array.shape)
    assert ann.any()
    assert point(client, place).json()["message"] == "No image uploaded"
    upload(client, array, user="/u/bob")
    assert np.array_equal(mask_of(point(client, place, user="/u/bob"), array.shape), ann)


def test_a_token_in_the_path(make_client, scan):
    array, place = scan
    client = make_client(token="0123456789abcdef")
    assert upload(client, array).status_code == 401
    assert upload(client, array, user="/u/0123456789abcdeX").status_code == 401
    assert upload(client, array, user="/u/0123456789abcdef").status_code == 200
    assert point(client, place, user="/u/0123456789abcdef").status_code == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nothing", 422),
        (npy(np.array([1, "x"], dtype=object)), 422),
        (gzip.compress(npy(np.zeros(100_000)), mtime=0), 413),
        (gzip.compress(b"x", mtime=0), 422),
        (npy(np.zeros(0)), 422),
    ],
)
def test_what_is_no_array_is_refused(data, status):
    with pytest.raises(RefusedError) as refused:
        read_npy(data, max_bytes=1000)
    assert refused.value.status == status
