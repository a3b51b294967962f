"""The requests that 3D Slicer's module and OHIF's extension make, written out as they make them.

Slicer's client builds multipart bodies by hand with a fixed boundary and reads the answer's parts by the
names in their Content-Disposition; OHIF's decodes the answer as text, looks for two literal Content-Type
lines and cuts the NRRD out between them.
"""

import email
import email.policy
import json
import re

import numpy as np
import pydicom
import pytest
import SimpleITK

from clickvol.io.formats import read_volume, write_volume
from clickvol.phantoms.phantom import make_phantom
from reference.dicom_series import write_series

SLICER_BOUNDARY = "----------lImIt_of_THE_fIle_eW_$"


def slicer_body(fields, files):
    lines = []
    for name, text in fields.items():
        lines += [
            f"--{SLICER_BOUNDARY}",
            f'Content-Disposition: form-data; name="{name}"',
            "",
            text,
        ]
    for name, (path, content) in files.items():
        lines.append(f"--{SLICER_BOUNDARY}")
        lines.append(f'Content-Disposition: form-data; name="{name}"; filename="{path}"')
        lines += ["Content-Type: application/octet-stream", "", content]
    lines += [f"--{SLICER_BOUNDARY}--", ""]
    return b"".join((x if isinstance(x, bytes) else x.encode()) + b"\r\n" for x in lines)


def slicer_send(client, method, selector, fields=None, files=None):
    body = slicer_body(fields or {}, files or {})
    headers = {
        "content-type": f"multipart/form-data; boundary={SLICER_BOUNDARY}",
        "content-length": str(len(body)),
    }
    return client.request(method, selector, content=body, headers=headers)


def slicer_infer(client, selector, **params):
    """Return the file and the params of an answer, as a parser of forms sees them."""
    sent = {"params": json.dumps({**params, "client_id": "user-xyz"})}
    reply = slicer_send(client, "POST", selector, sent)
    assert reply.status_code == 200, reply.text
    head = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + reply.content, policy=email.policy.HTTP)
    params_part, file_part = message.iter_parts()
    assert params_part.get_param("name", header="content-disposition") == "params"
    assert file_part.get_filename() == f"result{params['result_extension']}"
    return file_part.get_payload(decode=True), json.loads(params_part.get_content())


def read(content, tmp_path, suffix):
    place = tmp_path / f"result{suffix}"
    place.write_bytes(content)
    return SimpleITK.ReadImage(str(place))


@pytest.fixture
def clicks(phantom):
    i, j, k = (round(v) for v in phantom.inside.to_ijk())
    return [[i, j, k]], [[i + 3, j, k], [i, j + 3, k]]


@pytest.fixture
def mask_of(client, open_on, tmp_path):
    """What the server's own interface gives for the same clicks: (i, j, k) and whether inside."""

    def mask(scan, clicks):
        opened = open_on(client, scan)
        for position, positive in clicks:
            reply = opened.click(position, space="ijk", positive=positive)
            assert reply.status_code == 200
        (tmp_path / "expected.nii.gz").write_bytes(opened.get("mask.nii.gz?object_id=1").content)
        client.delete(opened.url)
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "expected.nii.gz")))

    return mask


def test_info_has_what_the_clients_read(client):
    info = client.get("/info/").json()
    assert "config" not in info  # Slicer takes that for an old server
    assert info["models"]["random"]["type"] == "deepgrow"
    assert info["models"]["random"]["dimension"] == 3
    assert info["labels"] == ["tumour"]  # Slicer selects the first
    in_browser = client.get("/info/", headers={"sec-fetch-site": "same-origin"}).json()
    assert in_browser["labels"] == ["background", "tumour"]  # OHIF leaves out the first
    assert set(info["strategies"]) == {"random", "first"}
    for section in ("trainers", "scoring", "datastore"):
        assert info[section] == {}
    assert "not a medical device" in info["description"]


def test_slicer_clicks_in_its_own_volume(client, root, clicks, mask_of, tmp_path):
    """Upload a volume, click, click again with one more point, another label, then take a point away."""
    inside, outside = clicks
    content = (root / "scan.nii.gz").read_bytes()
    # As `requests` sends it: PUT, field "files", and the client id as a form field.
    created = client.put(
        "/session/", files=[("files", ("tmpx1.nii.gz", content))], data={"client_id": "user-xyz"}
    )
    assert created.status_code == 200
    session_id = created.json()["session_id"]
    assert client.get(f"/session/{session_id}").status_code == 200
    selector = f"/infer/random?image=Volume&session_id={session_id}"
    words = {"label": "tumour", "result_extension": ".nii.gz", "result_dtype": "uint8"}
    content, params = slicer_infer(client, selector, foreground=inside, background=[], **words)
    first = read(content, tmp_path, ".nii.gz")
    assert params["label_names"] == {"tumour": 1}
    expected = mask_of("scan.nii.gz", [(inside[0], True)])
    assert np.array_equal(SimpleITK.GetArrayFromImage(first), expected)
    assert expected.any()
    content, _ = slicer_infer(client, selector, foreground=inside, background=outside, **words)
    more = SimpleITK.GetArrayFromImage(read(content, tmp_path, ".nii.gz"))
    both = [(inside[0], True), *((place, False) for place in outside)]
    assert np.array_equal(more, mask_of("scan.nii.gz", both))
    other = {**words, "label": "node"}
    content, params = slicer_infer(client, selector, foreground=inside, background=[], **other)
    assert params["label_names"] == {"node": 1}
    assert np.array_equal(SimpleITK.GetArrayFromImage(read(content, tmp_path, ".nii.gz")), expected)
    content, _ = slicer_infer(client, selector, foreground=inside, background=[], **words)
    assert np.array_equal(SimpleITK.GetArrayFromImage(read(content, tmp_path, ".nii.gz")), expected)
    assert client.delete(f"/session/{session_id}").status_code == 200
    assert client.get(f"/session/{session_id}").status_code == 404


def test_a_list_is_answered_as_it_is(client, root, clicks, mask_of, tmp_path):
    """Whatever was sent before; a point can be taken away again, and nothing is kept of any of them."""
    inside, outside = clicks
    sent = {"files": ("a.nii.gz", (root / "scan.nii.gz").read_bytes())}
    session_id = client.put("/session/", files=sent).json()["session_id"]
    selector = f"/infer/random?image=x&session_id={session_id}"
    words = {"label": "a", "result_extension": ".nrrd", "foreground": inside}
    masks = []
    for background in ([], outside, outside[:1], []):
        content, _ = slicer_infer(client, selector, background=background, **words)
        masks.append(SimpleITK.GetArrayFromImage(read(content, tmp_path, ".nrrd")))
        expected = mask_of("scan.nii.gz", [(inside[0], True), *((place, False) for place in background)])
        assert np.array_equal(masks[-1], expected)
    assert np.array_equal(masks[0], masks[3])
    assert not np.array_equal(masks[0], masks[1])
    state = client.get(f"/api/sessions/{session_id}").json()
    assert [len(known["clicks"]) for known in state["objects"]] == [0]


def test_slicer_uploads_an_image_and_names_it(client, root, clicks, tmp_path):
    inside, _ = clicks
    file = {"file": ("/tmp/x/Meier.nii.gz", (root / "scan.nii.gz").read_bytes())}
    fields = {"params": json.dumps({"client_id": "user-xyz"})}
    reply = slicer_send(client, "PUT", "/datastore/?image=CT+chest", fields, file)
    assert reply.json() == {"image": "CT chest"}
    words = {"label": "tumour", "result_extension": ".seg.nrrd", "foreground": inside}
    content, params = slicer_infer(client, "/infer/random?image=CT+chest", **words)
    image = read(content, tmp_path, ".seg.nrrd")
    mask = SimpleITK.GetArrayFromImage(image)
    d, h, w = (axis.mean() for axis in np.nonzero(mask))
    assert params["centroids"]["tumour"] == pytest.approx([1, w, h, d])
    downloaded = client.get("/datastore/image?image=CT+chest")
    (tmp_path / "down.nii.gz").write_bytes(downloaded.content)
    assert read_volume(tmp_path / "down.nii.gz").array.shape == mask.shape
    assert slicer_send(client, "PUT", "/datastore/label?image=x", fields).status_code == 403
    assert client.get("/train/?check_if_running=true").status_code == 404


def test_images_under_the_root(client, root, clicks, mask_of, tmp_path):
    (root / "case").mkdir()
    other = make_phantom(4, shape_dhw=(16, 40, 44)).volume
    write_volume(other.array, other.grid, root / "case" / "mr.mha")
    uid = read_series_uid(write_series(root / "series", shape_dhw=(12, 24, 20)))
    assert client.get("/datastore/?output=list").json() == sorted(["case/mr", "scan", uid])
    objects = client.get("/datastore/?output=all").json()["objects"]
    assert objects["scan"]["image"]["ext"] == ".nii.gz"
    assert client.get("/datastore/").json()["total"] == 3
    content = client.get("/datastore/image?image=scan").content
    assert content == (root / "scan.nii.gz").read_bytes()
    assert client.get("/datastore/image?image=../scan").status_code == 404
    inside, _ = clicks
    words = {"label": "tumour", "result_extension": ".nii.gz", "foreground": inside}
    content, _ = slicer_infer(client, "/infer/random?image=scan", **words)
    mask = SimpleITK.GetArrayFromImage(read(content, tmp_path, ".nii.gz"))
    assert np.array_equal(mask, mask_of("scan.nii.gz", [(inside[0], True)]))
    # The same session answers the next request.
    before = client.get("/api/health").json()["sessions"]
    slicer_infer(client, "/infer/random?image=scan", **words)
    assert client.get("/api/health").json()["sessions"] == before


def read_series_uid(folder):
    return str(pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID)


def test_ohif_clicks_in_a_series(client, root, mask_of):
    """The answer is cut up as OHIF's extension does it, in text; the NRRD must survive that."""
    uid = read_series_uid(write_series(root / "series", shape_dhw=(12, 24, 20)))
    params = {
        "foreground": [[10, 12, 6]],
        "background": [],
        "result_extension": ".nrrd",
        "result_dtype": "uint16",
        "result_compress": False,
        "restore_label_idx": False,
    }
    reply = client.post(f"/infer/random?image={uid}&output=all", files={"params": (None, json.dumps(params))})
    assert reply.status_code == 200
    boundary = re.search("boundary=([^;]+)", reply.headers["content-type"])[1]
    parts = reply.content.decode("utf-8", "replace").split(f"--{boundary}")
    (json_part,) = [p for p in parts if "Content-Type: application/json" in p]
    (nrrd_part,) = [p for p in parts if "Content-Type: application/octet-stream" in p]
    known = json.loads(json_part[json_part.index("{") : json_part.rindex("}") + 1])
    assert known["centroids"]["tumour"][0] == 1
    text = nrrd_part.split("\r\n\r\n")[1]
    data = bytes(ord(c) & 0xFF for c in text[: text.rindex("\r\n")])
    header, _, voxels = data.partition(b"\n\n")
    assert b"encoding: raw" in header
    assert b"sizes: 20 24 12" in header
    mask = np.frombuffer(voxels, dtype="<u2").reshape(12, 24, 20)
    assert np.array_equal(mask, mask_of("series", [([10, 12, 6], True)]))
    assert mask.any()


def test_other_outputs(client, clicks):
    inside, _ = clicks
    params = {"params": (None, json.dumps({"foreground": inside}))}
    known = client.post("/infer/random?image=scan&output=json", files=params).json()
    assert known["params"]["label_names"] == {"tumour": 1}
    image = client.post("/infer/random?image=scan&output=image", files=params)
    assert image.content.startswith(b"\x1f\x8b")  # as the image, .nii.gz
    assert 'filename="result.nii.gz"' in image.headers["content-disposition"]


@pytest.mark.parametrize(
    ("selector", "params", "status"),
    [
        ("/infer/other?image=scan", {"foreground": [[1, 1, 1]]}, 404),
        ("/infer/random?image=not-there", {"foreground": [[1, 1, 1]]}, 404),
        ("/infer/random?image=scan&session_id=none", {"foreground": [[1, 1, 1]]}, 404),
        ("/infer/random?image=scan", {}, 422),
        ("/infer/random?image=scan", {"background": [[1, 1, 1]]}, 422),
        ("/infer/random?image=scan", {"foreground": [[99, 1, 1]]}, 422),
        ("/infer/random?image=scan", {"foreground": [[1, 1]]}, 422),
        ("/infer/random?image=scan", {"foreground": [[1, 1, 1]], "result_extension": "/x"}, 422),
        ("/infer/random?image=scan", {"foreground": [[1, 1, 1]] * 201}, 422),
        ("/infer/random?image=scan&output=all", "no JSON", 422),
        ("/infer/random?image=scan", {"foreground": [[1, 1, 1]], "result_dtype": "text"}, 422),
        ("/infer/random?image=scan", {"foreground": [[1, 1, 1]], "roi": [1, 2, 3]}, 422),
        ("/infer/random?image=scan", {"roi": [90, 99, 90, 99, 90, 99]}, 422),
        ("/infer/random?image=scan", {"a": [[1, 1, 1]], "b": [[2, 2, 2]], "roi": [1, 5, 1, 5, 1, 5]}, 422),
        ("/infer/random?image=scan", {"nninter": True, "pos_points": [[1, 1, 1]]}, 422),
        ("/infer/random?image=scan", {f"label {n}": [[1, 1, 1]] for n in range(33)}, 422),
        ("/infer/random?image=scan&output=dicom_seg", {"foreground": [[20, 20, 8]]}, 409),
    ],
)
def test_requests_that_cannot_be_answered(client, selector, params, status):
    text = params if isinstance(params, str) else json.dumps(params)
    reply = client.post(selector, files={"params": (None, text)})
    assert reply.status_code == status
    assert set(reply.json()) == {"error", "detail"}


def test_there_are_as_many_labels_as_a_client_names(client, clicks):
    """A label map holds 255 objects; a list of clicks is answered without becoming one."""
    inside, _ = clicks
    for number in range(260):
        selector = "/infer/random?image=scan&output=json"
        params = {"params": (None, json.dumps({"foreground": inside, "label": f"label {number}"}))}
        reply = client.post(selector, files=params)
        assert reply.status_code == 200
        assert reply.json()["params"]["label_names"] == {f"label {number}": 1}
    assert client.get("/api/health").json()["sessions"] == 1


def test_the_objects_of_a_viewer_are_left_alone(opened, clicks, inside_ras_mm):
    inside, _ = clicks
    opened.click(inside_ras_mm)
    before = opened.state()
    selector = f"/infer/random?session_id={opened.id}"
    slicer_infer(opened.client, selector, foreground=inside, label="tumour", result_extension=".nrrd")
    assert opened.state() == before
