"""Masks over HTTP: put in, painted, named, deleted, compared, measured and taken out."""

import gzip
import io

import nibabel
import numpy as np
import pydicom
import pytest

from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import DrawnVoxels
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.formats import read_volume, write_volume
from clickvol.io.labelled_mask import TERMS
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.predict.scan_predictor import segment
from clickvol.prompts.packed_mask import PackedMask
from reference.dicom_series import write_series
from reference.random_models import random_model

pytest.importorskip("fastapi", reason="the extra serve is not installed")


@pytest.fixture
def two_boxes(phantom):
    """A label image with the values 2 and 5."""
    labels = np.zeros(phantom.volume.grid.shape_dhw, dtype=np.uint8)
    labels[3:7, 10:20, 10:20] = 2
    labels[9:12, 25:30, 30:40] = 5
    return labels


@pytest.fixture
def two_boxes_file(root, two_boxes, phantom):
    write_volume(two_boxes, phantom.volume.grid, root / "boxes.nii.gz")
    return root / "boxes.nii.gz"


def label_map(opened):
    content = gzip.decompress(opened.get("mask.nii.gz").content)
    return np.asarray(nibabel.Nifti1Image.from_bytes(content).dataobj).transpose(2, 1, 0)


def objects(opened):
    return {each["id"]: each for each in opened.state()["objects"]}


def test_every_object_of_a_file_becomes_one_and_undo_takes_it_back(opened, two_boxes, two_boxes_file):
    with two_boxes_file.open("rb") as file:
        reply = opened.client.post(f"{opened.url}/masks", files={"mask": ("prior.nii.gz", file)})
    assert reply.status_code == 200, reply.text
    assert [o["name"] for o in reply.json()["state"]["objects"]] == ["Label 2", "Label 5"]
    np.testing.assert_array_equal(label_map(opened), np.choose(two_boxes // 2, [0, 1, 2]))
    for _ in range(5):
        opened.post("undo")
    assert label_map(opened).sum() == 0
    assert list(objects(opened)) == [1]


def test_one_object_of_a_file_replaces_a_mask_and_clicks_go_on_from_it(opened, root, phantom, two_boxes):
    url = f"{opened.url}/objects/1/mask"
    given = opened.client.put(url, json={"path": "boxes.nii.gz"})
    assert given.status_code == 404  # it is not there yet
    write_volume(two_boxes, phantom.volume.grid, root / "boxes.nii.gz")
    given = opened.client.put(url, json={"path": "boxes.nii.gz", "segment": "Label 5"})
    assert given.status_code == 200, given.text
    assert given.json()["answer"]["num_voxels"] == (two_boxes == 5).sum()
    both = opened.client.put(url, json={"path": "boxes.nii.gz"}).json()
    assert both["answer"]["num_voxels"] == (two_boxes > 0).sum()
    assert opened.click([15, 15, 5], space="ijk").status_code == 200
    refused = opened.client.put(url, json={"path": "boxes.nii.gz", "segment": "Label 9"})
    assert refused.status_code == 422
    assert "'Label 2', 'Label 5'" in refused.json()["error"]


def test_masks_elsewhere_empty_or_damaged_are_refused_in_one_line(opened, root, phantom, two_boxes):
    elsewhere = VolumeGrid.axial(two_boxes[:-1].shape, (3.0, 3.0, 3.0))
    write_volume(two_boxes[:-1], elsewhere, root / "other.nii.gz")
    (root / "broken.nii.gz").write_bytes(b"\x1f\x8bnothing")
    (root / "notes.txt").write_text("no mask")
    for path, words, status in (
        ("other.nii.gz", "does not lie on the grid of the scan", 422),
        ("broken.nii.gz", "", 422),
        ("notes.txt", "no file of masks", 415),
        ("../x.nii.gz", "not under the folder", 403),
    ):
        reply = opened.client.put(f"{opened.url}/objects/1/mask", json={"path": path})
        assert (reply.status_code, words in reply.json()["error"]) == (status, True), reply.text
    assert opened.state()["can_undo"] is False


def test_voxels_are_painted_in_and_out(opened):
    painted = np.zeros((16, 40, 44), dtype=bool)
    painted[4:6, 8:12, 9:14] = True
    url = f"{opened.url}/objects/1/mask"
    words = {"voxels": DrawnVoxels.of(PackedMask.of(painted)).model_dump()}
    assert opened.client.patch(url, json=words).json()["answer"]["num_voxels"] == 40
    painted[4] = False
    words = {"voxels": DrawnVoxels.of(PackedMask.of(painted)).model_dump(), "added": False}
    assert opened.client.patch(url, json=words).json()["answer"]["num_voxels"] == 20
    assert opened.client.patch(url, json={"voxels": {"start_dhw": [0, 0, 0]}}).status_code == 422


def test_objects_are_named_coloured_and_deleted_and_keep_their_numbers(opened, two_boxes_file):
    opened.client.post(f"{opened.url}/masks", json={"path": "boxes.nii.gz"}).raise_for_status()
    url = f"{opened.url}/objects"
    changes = {"name": "Liver metastasis", "term": "14799000", "colour": "#00ff7f"}
    state = opened.client.patch(f"{url}/2", json=changes).json()["state"]
    assert {key: state["objects"][1][key] for key in changes} == changes
    opened.post("objects", name="third")
    state = opened.client.delete(f"{url}/1").json()["state"]
    assert [o["id"] for o in state["objects"]] == [2, 3]
    assert set(np.unique(label_map(opened))) == {0, 2}
    assert opened.get("mask.nii.gz", params={"object_id": 1}).status_code == 422
    assert "deleted" in opened.click([15, 15, 5], space="ijk").json()["error"]
    assert opened.post("objects", name="").json()["object_id"] == 4
    for _ in range(2):
        opened.post("undo")
    assert set(np.unique(label_map(opened))) == {0, 1, 2}
    for wrong in ({}, {"term": "1"}, {"colour": "red"}, {"name": "a\\b"}):
        assert opened.client.patch(f"{url}/2", json=wrong).status_code == 422
    assert opened.client.delete(f"{url}/9").status_code == 422


def test_a_session_that_comes_back_has_its_names_and_deletions(opened, make_client, two_boxes_file):
    opened.client.post(f"{opened.url}/masks", json={"path": "boxes.nii.gz"}).raise_for_status()
    opened.client.patch(f"{opened.url}/objects/2", json={"name": "Node", "term": "59441001"})
    opened.client.delete(f"{opened.url}/objects/1").raise_for_status()
    before = opened.state()
    opened.client.app.state.sessions.close()
    assert make_client().get(opened.url).json() == before


def test_terms_and_colours_go_into_dicom(client, root, open_on, tmp_path):
    series = write_series(root / "series", shape_dhw=(12, 24, 20))
    opened = open_on(client, "series")
    assert opened.click([10, 12, 6], space="ijk").json()["answer"]["num_voxels"] > 0
    listed = {each["code"]: each for each in client.get("/api/terms").json()}
    assert listed["10200004"] == {"code": "10200004", "meaning": "Liver", "category": "Anatomical Structure"}
    assert len(listed) == len(TERMS)
    client.patch(f"{opened.url}/objects/1", json={"term": "10200004", "colour": "#00ff00"}).raise_for_status()
    segment = pydicom.dcmread(io.BytesIO(opened.get("export?format=dicom-seg").content)).SegmentSequence[0]
    assert segment.SegmentLabel == "Liver 1"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    contours = pydicom.dcmread(io.BytesIO(opened.get("export?format=rtstruct").content))
    assert list(contours.ROIContourSequence[0].ROIDisplayColor) == [0, 255, 0]
    code = contours.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.CodeMeaning) == ("10200004", "Liver")

    # What was saved comes back as it was, by either format.
    shown = label_map(opened)
    for kind in ("dicom-seg", "rtstruct"):
        place = tmp_path / f"{kind}.dcm"
        place.write_bytes(opened.get(f"export?format={kind}").content)
        assert len(read_mask_file(place, read_volume(series).grid)) == 1
        again = open_on(client, "series")
        with place.open("rb") as file:
            reply = client.post(f"{again.url}/masks", files={"mask": (place.name, file)})
        assert [o["name"] for o in reply.json()["state"]["objects"]] == ["Liver 1"], reply.text
        np.testing.assert_array_equal(label_map(again), shown)


def test_a_reference_is_compared_with_and_is_no_object(opened, phantom, two_boxes, two_boxes_file):
    assert opened.get("comparison").status_code == 404
    mine = np.zeros(two_boxes.shape, dtype=bool)
    mine[3:7, 10:20, 10:16] = True
    mine[0, 0, 0] = True
    words = {"voxels": DrawnVoxels.of(PackedMask.of(mine)).model_dump()}
    opened.client.patch(f"{opened.url}/objects/1/mask", json=words).raise_for_status()
    result = opened.client.put(f"{opened.url}/reference", json={"path": "boxes.nii.gz"}).json()
    ml = phantom.volume.grid.voxel_volume_mm3 / 1000
    truth = two_boxes > 0
    assert result["dice"] == pytest.approx(2 * (mine & truth).sum() / (mine.sum() + truth.sum()))
    assert result["missing_ml"] == pytest.approx((truth & ~mine).sum() * ml)
    assert result["surplus_ml"] == pytest.approx(ml)
    assert result["largest_difference_ml"] == pytest.approx(4 * 10 * 4 * ml)
    at = phantom.volume.grid.voxel_positions(np.array([result["differs_at_ras_mm"]]))[0].round().astype(int)
    assert (truth & ~mine)[tuple(at)]
    kept = DrawnVoxels.model_validate(opened.get("reference").json()).mask
    np.testing.assert_array_equal(kept.full(truth.shape), truth)
    assert list(objects(opened)) == [1]
    assert opened.client.delete(f"{opened.url}/reference").status_code == 204
    assert opened.get("reference").status_code == 404


def test_diameters_and_surface_of_an_object(opened, phantom, two_boxes, two_boxes_file):
    assert opened.get("objects/1/measurements").json() == {"longest": None, "longest_on_slice": None}
    assert opened.get("objects/1/surface.stl").status_code == 422
    opened.client.put(f"{opened.url}/objects/1/mask", json={"path": "boxes.nii.gz", "segment": "Label 2"})
    measured = opened.get("objects/1/measurements").json()
    spacing = phantom.volume.grid.spacing_dhw_mm
    assert measured["longest"]["mm"] == pytest.approx(np.linalg.norm(spacing * [3, 9, 9]))
    assert measured["longest_on_slice"]["mm"] == pytest.approx(np.linalg.norm(spacing[1:] * 9))
    ends = np.array(measured["longest"]["ends_ras_mm"])
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(measured["longest"]["mm"])
    reply = opened.get("objects/1/surface.stl")
    assert reply.headers["content-type"] == "model/stl"
    assert len(reply.content) == 84 + 50 * int.from_bytes(reply.content[80:84], "little") > 5000


def test_an_overlay_is_another_scan_with_its_own_geometry(opened, root):
    other = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    grid = VolumeGrid.axial((5, 6, 7), (4.0, 4.0, 4.0))
    write_volume(other, grid, root / "pet.nii.gz")
    reply = opened.client.post(f"{opened.url}/overlay", json={"path": "pet.nii.gz"})
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-modality"] in ("CT", "MR", "PT", "unknown", "other")
    shown = nibabel.Nifti1Image.from_bytes(reply.content)
    np.testing.assert_array_equal(np.asarray(shown.dataobj).transpose(2, 1, 0), other)
    np.testing.assert_allclose(shown.affine, grid.affine_ijk_ras_mm)
    with (root / "pet.nii.gz").open("rb") as file:
        sent = opened.client.post(f"{opened.url}/overlay", files={"scan": ("pet.nii.gz", file)})
    assert sent.content == reply.content
    assert opened.client.post(f"{opened.url}/overlay", json={"path": "nothing.nii.gz"}).status_code == 404


def test_an_automatic_model_proposes_a_mask_which_is_an_object_once_it_is_given(make_client, open_on, root):
    proposer = random_model(sam3d_adapter_recipe("automatic", "tiny"), seed=1)
    opened = open_on(make_client(proposer=proposer))
    assert opened.client.get("/api/model").json()["proposer"] == proposer.card.id
    wanted = segment(read_volume(root / "scan.nii.gz"), (), proposer).mask
    assert 0 < wanted.array.sum() < wanted.array.size
    given = opened.get("proposal").json()
    assert given["model_id"] == proposer.card.id
    np.testing.assert_array_equal(
        DrawnVoxels.model_validate(given["voxels"]).mask.full(wanted.array.shape), wanted.array
    )
    voxel = wanted.grid.to_voxel(WorldPointRAS(*given["place_ras_mm"])).as_array().round().astype(int)
    assert wanted.array[tuple(voxel)]
    assert objects(opened)[1]["num_voxels"] == 0
    reply = opened.post("interactions", kind="given_mask", object_id=1, voxels=given["voxels"])
    assert reply.status_code == 200, reply.text
    np.testing.assert_array_equal(label_map(opened), wanted.array)
    opened.post("undo")
    assert label_map(opened).sum() == 0


def test_a_server_without_an_automatic_model_proposes_nothing(opened):
    assert opened.client.get("/api/model").json()["proposer"] is None
    reply = opened.get("proposal")
    assert (reply.status_code, "--propose" in reply.json()["error"]) == (404, True)
