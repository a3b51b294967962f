"""Routes of the viewer: the scan uncompressed with one geometry, masks that changed, series to choose from."""

import gzip
import json
import zlib

import nibabel
import numpy as np
import pytest

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
