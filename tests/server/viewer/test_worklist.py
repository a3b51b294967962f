"""The worklist: who has which case, what is done, and what is written."""

import csv

import nibabel
import numpy as np
import pytest

from clickvol.errors import ConfigError
from clickvol.io.formats import read_volume, write_volume
from reference.dicom_series import write_series

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from clickvol.server.viewer.worklist import is_worklist, read_cases

ANNE, BEN = "annotator-anne", "annotator-ben"


@pytest.fixture
def listed(make_client, root, tmp_path, phantom):
    (root / "b").mkdir()
    write_volume(phantom.volume.array, phantom.volume.grid, root / "b" / "second.nii.gz")
    return make_client(worklist_source=root, worklist_output=tmp_path / "masks")


def post(client, path, **words):
    return client.post(f"/api/worklist/{path}", json=words)


def test_two_annotators_never_get_the_same_case(listed):
    assert [case["name"] for case in listed.get("/api/worklist").json()] == ["b/second.nii.gz", "scan.nii.gz"]
    first = post(listed, "next", annotator=ANNE).json()
    second = post(listed, "next", annotator=BEN).json()
    assert {first["id"], second["id"]} == {1, 2}
    assert post(listed, "next", annotator="annotator-carl").json() is None
    assert post(listed, f"{first['id']}/claim", annotator=BEN).status_code == 409
    assert post(listed, f"{first['id']}/open", annotator=BEN).status_code == 409
    assert post(listed, f"{first['id']}/claim", annotator=ANNE).status_code == 200
    assert post(listed, "9/claim", annotator=ANNE).status_code == 404


def test_a_case_of_several_volumes_lets_its_annotator_choose(make_client, root):
    pixels = np.arange(1512, dtype=np.int16).reshape(9, 8, 7, 3)
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), root / "a.nii.gz")
    (root / "cases.csv").write_text(
        'scan,click,output,volume\na.nii.gz,"4,4,4",a_mask.nii.gz,2\n', encoding="utf-8"
    )
    for source, given, status in ((root, {"volume": 1}, 201), (root / "cases.csv", {}, 201), (root, {}, 422)):
        client = make_client(worklist_source=source, worklist_output=root / "masks")
        assert [each["volume"] for each in client.get("/api/worklist/1/volumes").json()] == [0, 1, 2]
        assert post(client, "1/open", annotator=ANNE, **given).status_code == status


def test_what_is_done_is_written_measured_and_survives_a_restart(listed, make_client, root, tmp_path, phantom):
    opened = post(listed, "2/open", annotator=ANNE).json()
    url = f"/api/sessions/{opened['session_id']}"
    listed.post(f"{url}/clicks", json={"position": phantom.inside.to_ijk(), "space": "ijk"}).raise_for_status()
    expected = listed.get(f"{url}").json()["objects"][0]
    done = post(listed, "2/done", annotator=ANNE, session_id=opened["session_id"], seconds=42.0).json()
    assert (done["status"], done["seconds"]) == ("done", 42.0)
    assert done["objects"][0]["volume_ml"] == pytest.approx(expected["volume_ml"])
    mask = read_volume(tmp_path / "masks" / "scan_mask.nii.gz")
    assert int((mask.array == 1).sum()) == expected["num_voxels"] > 0
    assert post(listed, "1/done", annotator=ANNE, seconds=1).json()["status"] == "skipped"

    again = make_client(worklist_source=root, worklist_output=tmp_path / "masks")
    assert [case["status"] for case in again.get("/api/worklist").json()] == ["skipped", "done"]
    text = (tmp_path / "masks" / "worklist.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["status"] for row in rows] == ["skipped", "done"]
    assert (rows[1]["clicks"], rows[1]["seconds"]) == ("1", "42.0")
    assert float(rows[1]["longest_diameter_mm"]) > 0


def test_a_session_on_another_scan_is_not_saved_for_a_case(listed, tmp_path):
    opened = post(listed, "1/open", annotator=ANNE).json()
    answer = post(listed, "2/done", annotator=ANNE, session_id=opened["session_id"], seconds=1)
    assert answer.status_code == 409
    assert not (tmp_path / "masks" / "scan_mask.nii.gz").exists()
    assert post(listed, "next", annotator=BEN).status_code == 200


def test_without_a_worklist_there_are_no_cases(client):
    assert client.get("/api/worklist").json() == []
    assert post(client, "next", annotator=ANNE).status_code == 404


def test_a_mask_that_is_there_already_counts_as_done_and_is_not_given_out(make_client, root, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "scan_mask.nii.gz").write_bytes(b"somebody's work")
    client = make_client(worklist_source=root, worklist_output=tmp_path / "masks")
    assert [case["status"] for case in client.get("/api/worklist").json()] == ["done"]
    assert post(client, "next", annotator=ANNE).json() is None
    assert post(client, "1/claim", annotator=ANNE).json()["mine"]


def test_rows_on_one_scan_are_cases_of_their_own_after_a_restart(make_client, root, tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text("scan,click,output\nroot/scan.nii.gz,,liver/a.nii.gz\nroot/scan.nii.gz,,b.nii.gz\n")
    settings = {"worklist_source": manifest, "worklist_output": tmp_path / "masks"}
    post(make_client(**settings), "1/done", annotator=ANNE, seconds=1)
    states = [case["status"] for case in make_client(**settings).get("/api/worklist").json()]
    assert states == ["skipped", "new"]


@pytest.mark.parametrize(
    ("row", "says"),
    [("none.nii.gz,,a.nii.gz", "row 1 .* there is no"), ("root/scan.nii.gz,,a.dcm", "row 1 .* does not write")],
)
def test_a_row_that_cannot_be_worked_on_is_refused_at_the_start(root, tmp_path, row, says):
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"scan,click,output\n{row}\n")
    with pytest.raises(ConfigError, match=says):
        read_cases(manifest, tmp_path / "masks")


def test_the_summary_does_not_replace_the_manifest(make_client, root, tmp_path):
    manifest = tmp_path / "worklist.csv"
    manifest.write_text("scan,click,output\nroot/scan.nii.gz,,a.nii.gz\n")
    with pytest.raises(ConfigError, match="would be replaced"):
        make_client(worklist_source=manifest, worklist_output=tmp_path)


def test_two_scans_of_one_name_have_two_masks(root, tmp_path, phantom):
    write_volume(phantom.volume.array, phantom.volume.grid, root / "scan.nrrd")
    masks = [case.output.name for case in read_cases(root, tmp_path / "masks")]
    assert masks == ["scan_mask.nii.gz", "scan_2_mask.nii.gz"]


def test_one_dicom_series_is_a_scan_and_folders_of_several_are_a_list(tmp_path):
    write_series(tmp_path / "one" / "a")
    assert not is_worklist(tmp_path / "one" / "a")
    assert not is_worklist(tmp_path / "one")
    write_series(tmp_path / "one" / "b")
    assert is_worklist(tmp_path / "one")
    cases = read_cases(tmp_path / "one", tmp_path / "masks")
    assert [case.scan.name for case in cases] == ["a", "b"]
    assert all(case.series for case in cases)


def test_a_case_has_a_picture_and_its_scan_is_read_ahead_once(listed):
    picture = listed.get("/api/worklist/2/picture").json()["picture"]
    assert picture.startswith("data:image/png;base64,")
    ahead = listed.get("/api/worklist/2/scan.nii")
    assert ahead.status_code == 200
    (held,) = listed.app.state.sessions.ahead.values()
    opened = post(listed, "2/open", annotator="annotator-1")
    assert opened.status_code == 201, opened.text
    assert listed.app.state.sessions.ahead == {}
    assert held.grid.shape_dhw[::-1] == tuple(opened.json()["scan"]["shape_ijk"])
    shown = listed.get(f"/api/sessions/{opened.json()['session_id']}/scan.nii")
    assert shown.content == ahead.content
    assert listed.get("/api/worklist/9/picture").status_code == 404


def test_a_scan_that_cannot_be_read_has_no_picture(make_client, root, tmp_path):
    (root / "broken.nii.gz").write_bytes(b"no scan")
    client = make_client(worklist_source=root, worklist_output=tmp_path / "masks")
    assert client.get("/api/worklist/1/picture").json() == {"picture": None}
    assert client.get("/api/worklist/1/scan.nii").status_code == 422
