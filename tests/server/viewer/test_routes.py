"""Routes of the viewer: the scan uncompressed with one geometry, masks that changed, series to choose from."""

import gzip
import json
import zlib

import nibabel
import numpy as np
import pydicom
import pytest

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.interactive.interactions import DrawnVoxels
from clickvol.prompts.packed_mask import PackedMask
from reference.dicom_series import write_series

pytest.importorskip("fastapi", reason="the extra serve is not installed")


def masks_of(response):
    """Return the text of an answer, and the mask of each object that it holds, by id."""
    content = response.content
    end = 4 + int.from_bytes(content[:4], "little")
    text, masks = json.loads(content[4:end]), {}
    for entry in text["objects"]:
        if "length" in entry:
            i, j, k = entry["shape_ijk"]
            bits = zlib.decompress(content[end : end + entry["length"]]) if entry["length"] else b""
            end += entry["length"]
            flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=i * j * k)
            masks[entry["id"]] = entry["start_ijk"], flat.reshape(k, j, i)
    assert end == len(content)
    return text, masks


def test_masks_that_changed_are_those_of_the_label_map(client, opened, phantom):
    session_id = opened.id
    opened.click(phantom.inside.to_ijk(), space="ijk").raise_for_status()
    text, masks = masks_of(client.get(f"/api/sessions/{session_id}/masks"))
    label_map = client.get(f"/api/sessions/{session_id}/mask.nii.gz").content
    expected = np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(label_map)).dataobj)
    (i, j, k), mask = masks[1]
    painted = np.zeros(expected.shape, dtype=np.uint8)
    d, h, w = mask.shape
    painted[i : i + w, j : j + h, k : k + d] = mask.transpose(2, 1, 0)
    assert painted.sum() > 50
    np.testing.assert_array_equal(painted, expected)

    known = f"1:{text['objects'][0]['hash']}"
    again, nothing = masks_of(client.get(f"/api/sessions/{session_id}/masks", params={"known": known}))
    assert nothing == {}
    assert again["tag"] == text["tag"]
    client.post(f"/api/sessions/{session_id}/undo").raise_for_status()
    _, gone = masks_of(client.get(f"/api/sessions/{session_id}/masks", params={"known": known}))
    assert gone[1][1].size == 0


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_scan_without_orientation_travels_with_one_geometry(client, root, name):
    array = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    header = nibabel.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_data_dtype(np.int16)
    header["pixdim"][1:4] = [2, 2, 3]
    header["magic"], header["vox_offset"] = b"n+1", 352
    (root / "bare.nii").write_bytes(header.binaryblock + b"\0" * 4 + array.tobytes(order="F"))
    opened = client.post("/api/sessions", json={"path": "bare.nii"}).json()
    content = client.get(f"/api/sessions/{opened['session_id']}/{name}").content
    shown = nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if name.endswith("gz") else content)
    assert (shown.header["qform_code"], shown.header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(shown.header.get_qform(), shown.header.get_sform(), atol=1e-5)
    np.testing.assert_allclose(shown.affine, nibabel.load(root / "bare.nii").affine)
    np.testing.assert_array_equal(np.asarray(shown.dataobj), array)


def test_series_of_a_folder_are_listed_with_a_picture(client, root):
    for number in (1, 2):
        write_series(root / "study" / str(number), SeriesNumber=number, SeriesInstanceUID=f"2.25.{number}")
    listed = client.get("/api/series", params={"path": "study"}).json()
    assert len(listed) == 2
    for series in listed:
        assert series["picture"].startswith("data:image/png;base64,")
        assert series["shape_ijk"][2] == series["num_slices"]
    assert client.get("/api/series", params={"path": "../elsewhere"}).status_code in (403, 404)


def test_volumes_of_a_series_and_of_a_file_are_listed_and_opened(client, root):
    pixels = np.arange(5 * 7 * 6 * 2, dtype=np.int16).reshape(6, 7, 5, 2)
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), root / "dynamic.nii.gz")
    for time in (1, 2):
        for number, file in enumerate(sorted(write_series(root / "parts").iterdir())):
            dataset = pydicom.dcmread(file)
            dataset.update({"TemporalPositionIdentifier": time, "SOPInstanceUID": f"2.25.{time}{number}"})
            (root / "perfusion").mkdir(exist_ok=True)
            dataset.save_as(root / "perfusion" / f"{time}{number}")
    for path, names in (
        ("dynamic.nii.gz", ["", ""]),
        ("perfusion", ["abdomen, time point 1", "abdomen, time point 2"]),
    ):
        refused = client.post("/api/sessions", json={"path": path})
        assert "volumes, but one" in refused.json()["error"]
        listed = client.get("/api/series", params={"path": path}).json()
        assert [(each["volume"], each["description"], each["problem"]) for each in listed] == [
            (number, name, None) for number, name in enumerate(names)
        ]
        given = {"path": path, "volume": 1} | ({"series": listed[1]["uid"]} if listed[1]["uid"] else {})
        opened = client.post("/api/sessions", json=given)
        assert opened.json()["scan"]["shape_ijk"] == listed[1]["shape_ijk"]
    sent = {"scan": ("dynamic.nii.gz", (root / "dynamic.nii.gz").read_bytes())}
    assert len(client.post("/api/series", files=sent).json()) == 2
    answer = client.post("/api/sessions", files=sent, data={"volume": "1"}).json()
    shown = client.get(f"/api/sessions/{answer['session_id']}/scan.nii").content
    array = np.asarray(nibabel.Nifti1Image.from_bytes(shown).dataobj)
    np.testing.assert_array_equal(array, pixels[..., 1])


def interact(client, opened, **fields):
    return client.post(f"/api/sessions/{opened.id}/interactions", json={"object_id": 1, **fields})


def drawn_fields(mask):
    voxels = DrawnVoxels.of(PackedMask.of(mask)).model_dump()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in voxels.items()}


def test_every_kind_of_interaction_changes_the_mask_and_can_be_undone(client, opened, phantom, inside_ras_mm):
    shape, (d, h, w) = phantom.volume.grid.shape_dhw, phantom.inside.as_array().astype(int).tolist()
    stroke = np.zeros(shape, dtype=bool)
    stroke[d, h, w - 3 : w + 4] = True
    area = np.zeros(shape, dtype=bool)
    area[d, h - 4 : h + 5, w - 4 : w + 5] = True
    corners = {"space": "ijk", "first": [w - 5, h - 5, d], "second": [w + 5, h + 5, d]}
    for fields in (
        {"kind": "click", "space": "ras", "position": inside_ras_mm, "positive": True},
        {"kind": "line", **corners},
        {"kind": "box", **corners, "positive": True},
        {"kind": "scribble", "voxels": drawn_fields(stroke)},
        {"kind": "lasso", "voxels": drawn_fields(area)},
    ):
        reply = interact(client, opened, **fields)
        assert reply.status_code == 200, reply.text
    (known,) = reply.json()["state"]["objects"]
    assert [click["place"] for click in known["clicks"]] == [0]
    assert [(mark["kind"], mark["place"]) for mark in known["marks"]] == [
        ("line", 1),
        ("box", 2),
        ("scribble", 3),
        ("lasso", 4),
    ]
    assert [len(mark["points_ras_mm"]) for mark in known["marks"]] == [2, 2, 7, 32]
    grid = phantom.volume.grid
    middle = np.mean(known["marks"][1]["points_ras_mm"], axis=0)
    np.testing.assert_allclose(middle, inside_ras_mm, atol=1e-6)
    np.testing.assert_allclose(
        known["marks"][2]["points_ras_mm"][0], grid.to_world(VoxelPoint(d, h, w - 3)).as_array()
    )

    corner = np.zeros(shape, dtype=bool)
    corner[:2, :2, :2] = True
    painted = interact(client, opened, kind="brush", voxels=drawn_fields(corner), added=True).json()
    assert painted["answer"]["num_voxels"] == known["num_voxels"] + 8
    grown = interact(client, opened, kind="mask_operation", operation="grow", mm=9).json()
    assert grown["answer"]["num_voxels"] > painted["answer"]["num_voxels"]
    removed = interact(client, opened, kind="edit_prompt", place=2).json()
    assert [mark["place"] for mark in removed["state"]["objects"][0]["marks"]] == [1, 3, 4]
    for _ in range(3):
        state = opened.post("undo").json()["state"]
    assert state["objects"] == [known]


def test_advice_is_of_the_answer_that_is_shown(client, opened, inside_ras_mm):
    url = f"/api/sessions/{opened.id}/objects/1/advice"
    nothing = {
        **dict.fromkeys(
            ("expected_dice", "expected_dice_interval", "comparable_patients", "next_click_ras_mm")
        ),
        "candidates": [],
        "chosen": 0,
    }
    assert client.get(url).json() == nothing
    opened.click(inside_ras_mm).raise_for_status()
    assert len(client.get(url).json()["next_click_ras_mm"]) == 3
    interact(client, opened, kind="mask_operation", operation="fill_holes").raise_for_status()
    assert client.get(url).json() == nothing
    assert client.get(f"/api/sessions/{opened.id}/objects/2/advice").status_code == 422


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "brush", "added": True},
        {"kind": "scribble", "voxels": {"start_dhw": [0, 0, 0], "shape_dhw": [4, 4, 4], "bits": "AAAA"}},
        {"kind": "lasso", "voxels": drawn_fields(np.ones((99, 2, 2)))},
        {"kind": "mask_operation", "operation": "explode"},
        {"kind": "edit_prompt", "place": 0},
        {"kind": "unknown"},
        {"kind": "reset"},
    ],
)
def test_interactions_that_cannot_be_are_refused_in_one_line(client, opened, fields):
    reply = interact(client, opened, **fields)
    assert reply.status_code == 422
    assert "\n" not in reply.json()["error"]
    assert not opened.state()["can_undo"]


def test_the_interactions_are_described(client):
    described = client.get("/openapi.json").json()
    body = described["paths"]["/api/sessions/{session_id}/interactions"]["post"]["requestBody"]
    kinds = body["content"]["application/json"]["schema"]["discriminator"]["mapping"]
    assert {"click", "line", "box", "scribble", "lasso", "brush", "edit_prompt", "mask_operation"} <= set(kinds)
