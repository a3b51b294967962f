"""What a client says beside clicks is used or refused aloud; answers are those of the predictor."""

import io
import json

import numpy as np
import pydicom
import pytest
import SimpleITK

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.formats import read_volume
from clickvol.predict.scan_predictor import segment
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, Scribble
from reference.dicom_series import write_series


@pytest.fixture
def inside(phantom):
    return [round(v) for v in phantom.inside.to_ijk()]


@pytest.fixture
def volume(root):
    return read_volume(root / "scan.nii.gz")


@pytest.fixture
def infer(client, tmp_path):
    def send(image="scan", output="image", files=(), **params):
        sent = {"params": (None, json.dumps(params)), **dict(files)}
        reply = client.post(f"/infer/random?image={image}&output={output}", files=sent)
        assert reply.status_code == 200, reply.text
        return reply

    return send


def array_of(reply, tmp_path, suffix=".nii.gz"):
    place = tmp_path / f"answer{suffix}"
    place.write_bytes(reply.content)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(place)))


def expected(volume, prompts, tiny_model):
    return segment(volume, prompts, tiny_model).mask.array


def at(place, *, inside=True):
    return Click.at(tuple(place), foreground=inside)


@pytest.mark.parametrize(
    ("asked", "given"),
    [("uint8", "uint8"), ("int8", "int16"), ("int32", "int32"), ("int64", "int32"), ("float32", "float32")],
)
def test_any_dtype(infer, inside, tmp_path, asked, given):
    for words in ({}, {"result_extension": ".nrrd", "result_compress": False}):
        suffix = words.get("result_extension", ".nii.gz")
        mask = array_of(infer(foreground=[inside], result_dtype=asked, **words), tmp_path, suffix)
        assert (mask.dtype.name, set(np.unique(mask))) == (given, {0, 1})


@pytest.mark.parametrize("roi", [None, [], [3, 30, 4, 31, 2, 12]])
def test_the_box_of_a_roi(infer, volume, tiny_model, inside, tmp_path, roi):
    prompts = [at(inside)]
    if roi:
        prompts.append(Box(VoxelPoint.from_ijk(3, 4, 2), VoxelPoint.from_ijk(30, 31, 12)))
    mask = array_of(infer(foreground=[inside], roi=roi), tmp_path)
    assert np.array_equal(mask, expected(volume, prompts, tiny_model))


def test_a_roi_alone_says_where(infer, volume, tiny_model, tmp_path):
    mask = array_of(infer(roi=[3, 30, 4, 31, 2, 12]), tmp_path)
    box = Box(VoxelPoint.from_ijk(3, 4, 2), VoxelPoint.from_ijk(30, 31, 12))
    assert np.array_equal(mask, expected(volume, [box], tiny_model))


@pytest.mark.parametrize("values", [(3, 2), (1, None)])
def test_scribbles_in_a_label(infer, volume, tiny_model, inside, tmp_path, values):
    i, j, k = inside
    drawn = np.zeros(volume.array.shape, np.uint8)
    drawn[k, j, i - 2 : i + 3] = values[0]
    prompts = [Scribble(PackedMask.of(drawn == values[0]), True)]
    if values[1]:
        drawn[k, 1:4, 1:4] = values[1]
        prompts.append(Scribble(PackedMask.of(drawn == values[1]), False))
    image = SimpleITK.GetImageFromArray(drawn)
    (tmp_path / "scan.nii.gz").write_bytes(infer(output="image", foreground=[inside]).content)
    image.CopyInformation(SimpleITK.ReadImage(str(tmp_path / "scan.nii.gz")))
    SimpleITK.WriteImage(image, str(tmp_path / "drawn.nii.gz"))
    files = {"label": ("scribbles.nii.gz", (tmp_path / "drawn.nii.gz").read_bytes())}
    mask = array_of(infer(files=files), tmp_path)
    assert np.array_equal(mask, expected(volume, prompts, tiny_model))


def test_scribbles_on_another_grid(client, infer, inside, tmp_path):
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.eye(9, dtype=np.uint8)[None].repeat(5, 0)), str(tmp_path / "x.nii.gz")
    )
    files = {"params": (None, "{}"), "label": ("x.nii.gz", (tmp_path / "x.nii.gz").read_bytes())}
    reply = client.post("/infer/random?image=scan", files=files)
    assert (reply.status_code, "not on the grid" in reply.json()["error"]) == (422, True)


def test_deepedit_has_a_list_for_each_label(infer, volume, tiny_model, inside, tmp_path):
    i, j, k = inside
    other, outside = [i + 8, j, k], [i, j + 9, k]
    words = {"tumour": [inside], "node": [other], "background": [outside], "empty": []}
    facts = infer(output="json", **words).json()["params"]
    assert facts["label_names"] == {"tumour": 1, "node": 2}
    labels = array_of(infer(**words), tmp_path)
    masks = [
        expected(volume, [at(a), at(outside, inside=False), at(b, inside=False)], tiny_model)
        for a, b in ((inside, other), (other, inside))
    ]
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert np.array_equal(labels > 0, (masks[0] | masks[1]) > 0)
    for value, (mask, another) in enumerate((masks, masks[::-1]), start=1):
        alone = (mask > 0) & (another == 0)
        assert (labels[alone] == value).all()
    single = array_of(infer(tumour=[inside], background=[outside]), tmp_path)
    assert np.array_equal(single, expected(volume, [at(inside), at(outside, inside=False)], tiny_model))


def test_a_place_is_not_inside_and_outside(client, inside):
    # What OHIF sends when Run is pressed with "background" chosen.
    params = (None, json.dumps({"foreground": [inside], "background": [inside]}))
    reply = client.post("/infer/random?image=scan", files={"params": params})
    assert (reply.status_code, "choose the label, then run" in reply.json()["error"]) == (422, True)


def test_a_dicom_segmentation(infer, root, tmp_path):
    folder = write_series(root / "series", shape_dhw=(12, 24, 20))
    uid = str(pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID)
    words = {"image": uid, "foreground": [[10, 12, 6]]}
    reply = infer(output="dicom_seg", label_info=[{"name": "liver metastasis"}], **words)
    assert pydicom.dcmread(io.BytesIO(reply.content)).Modality == "SEG"
    (tmp_path / "seg.dcm").write_bytes(reply.content)
    (known,) = read_mask_file(tmp_path / "seg.dcm", read_volume(folder).grid)
    assert known.name == "liver metastasis"
    mask = array_of(infer(**words), tmp_path)
    assert np.array_equal(known.mask.array, mask)
    assert mask.any()


def test_mitk_sends_its_image_with_each_click(client, root, inside, tmp_path):
    """No query, the parts found by their types, and one session for all of it."""
    masks = []
    for _ in range(3):
        assert client.get("/info/").status_code == 200
        params = {"foreground": [inside], "background": [], "reset_state": True}
        files = {
            "params": (None, json.dumps(params)),
            "file": ("post_from_mitk.nii.gz", (root / "scan.nii.gz").read_bytes(), "application/octet-stream"),
        }
        reply = client.post("/infer/random", files=files)
        boundary = reply.headers["content-type"].partition("boundary=")[2].encode()
        _, of_params, of_file, _ = reply.content.split(b"--" + boundary)
        assert b"Content-Type: application/json" in of_params
        assert b'filename="result.nii.gz"' in of_file
        content = of_file.partition(b"Content-Type: application/octet-stream\r\n\r\n")[2].removesuffix(b"\r\n")
        (tmp_path / "mitk.nii.gz").write_bytes(content)
        masks.append(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "mitk.nii.gz"))))
    assert all(np.array_equal(masks[0], mask) for mask in masks)
    assert masks[0].any()
    assert client.get("/api/health").json()["sessions"] == 1


def test_a_session_on_the_files_of_a_series(client, tmp_path):
    folder = write_series(tmp_path / "series", shape_dhw=(12, 24, 20))
    files = [("files", (file.name, file.read_bytes())) for file in folder.iterdir()]
    session = client.put("/session/", files=files).json()["session_id"]
    params = {"params": (None, json.dumps({"foreground": [[10, 12, 6]]}))}
    reply = client.post(f"/infer/random?session_id={session}&output=dicom_seg", files=params)
    assert reply.status_code == 200, reply.text
    other = client.put("/session/", files=[*files[:3], ("files", ("x", b"nothing"))])
    assert other.status_code in (415, 422)
    assert client.get("/api/health").json()["sessions"] == 1
