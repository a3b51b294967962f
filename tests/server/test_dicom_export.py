"""DICOM out of the server; the other formats are in test_routes.py."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.formats import read_volume
from reference.dicom_series import write_series

SHAPE_DHW = (12, 24, 20)


@pytest.fixture
def series(root):
    return write_series(root / "series", shape_dhw=SHAPE_DHW)


@pytest.fixture(params=["folder", "zip"])
def clicked(request, client, series, tmp_path, open_on):
    """A session on a series, by path or as an uploaded zip, with a click on an object."""
    if request.param == "folder":
        opened = open_on(client, "series")
    else:
        packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", series))
        with packed.open("rb") as file:
            reply = client.post("/api/sessions", files={"scan": ("Meier.zip", file)})
        assert reply.status_code == 201, reply.text
        opened = open_on.__new__(open_on)
        opened.client, opened.known = client, reply.json()
        opened.url = f"/api/sessions/{opened.known['session_id']}"
    assert opened.known["scan"]["is_dicom"] is True
    assert opened.get("export?format=dicom-seg").status_code == 409  # nothing was found yet
    result = opened.click([10, 12, 6], space="ijk").json()["answer"]
    assert result["num_voxels"] > 0
    return opened


@pytest.mark.parametrize(
    ("file_format", "name", "modality"),
    [("dicom-seg", "clickvol-seg.dcm", "SEG"), ("rtstruct", "clickvol-rtstruct.dcm", "RTSTRUCT")],
)
def test_the_file_holds_the_mask(clicked, series, tmp_path, file_format, name, modality):
    reply = clicked.get(f"export?format={file_format}")
    assert reply.status_code == 200, reply.text
    assert f'filename="{name}"' in reply.headers["content-disposition"]
    place = tmp_path / name
    place.write_bytes(reply.content)
    dataset = pydicom.dcmread(place)
    assert dataset.Modality == modality
    volume = read_volume(series)
    (read,) = read_mask_file(place, volume.grid)
    (tmp_path / "mask.nii.gz").write_bytes(clicked.get("mask.nii.gz").content)
    shown = read_volume(tmp_path / "mask.nii.gz")
    assert read.name == "Tumour 1"
    assert np.array_equal(read.mask.array, shown.array)
    source = pydicom.dcmread(next(series.iterdir()))
    assert dataset.PatientID == source.PatientID
    assert "sha256 " in str(dataset)  # which weights
    reply = clicked.get(f"export?format={file_format}&deidentify=true")
    place.write_bytes(reply.content)
    assert str(pydicom.dcmread(place).PatientID) != str(source.PatientID)
