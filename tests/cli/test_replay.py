"""`clickvol replay` on the log of a real session."""

import json

import nibabel as nib
import numpy as np
import pytest

from clickvol import InteractiveSession, load_model, read_volume
from clickvol.cli.app import main
from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A scan, the log of a session on it, and its label map."""
    folder = tmp_path_factory.mktemp("replay")
    phantom = make_phantom(3, shape_dhw=(24, 48, 48), spacing_dhw_mm=(4.0, 3.0, 3.0), tumour_diameter_mm=50)
    scan = folder / "scan.nii.gz"
    write_volume(phantom.volume.array.astype(np.int16), phantom.volume.grid, scan)
    session = InteractiveSession(load_model(device="cpu"), log_folder=folder / "logs")
    session.set_volume(read_volume(scan))
    session.click(phantom.inside)
    session.freeze_object(1)
    second = session.add_object("beside")
    d, h, w = phantom.inside.as_array()
    session.click(type(phantom.inside)(d, h, w + 2), object_id=second)
    session.close()
    (log,) = (folder / "logs").iterdir()
    return scan, log, session.mask().array


def test_the_label_map_comes_again_to_the_bit(made, tmp_path, capsys):
    scan, log, labels = made
    out = tmp_path / "again.nii.gz"
    assert main(["replay", str(log), str(scan), "-o", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 masks are the same to the bit" in printed
    assert "object 2 'beside'" in printed
    assert ", frozen" in printed
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), labels.T)


def test_one_object_alone(made, tmp_path):
    scan, log, labels = made
    out = tmp_path / "one.nii.gz"
    words = ["replay", str(log), str(scan), "-o", str(out), "--object", "2", "--device", "cpu"]
    assert main(words) == 0
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), labels.T == 2)


def test_another_mask_is_told(made, tmp_path, capsys):
    scan, log, _ = made
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[2]["mask_sha256"] = "0" * 64
    lines[0]["versions"]["torch"] = "1.0"
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["replay", str(changed), str(scan), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "clicks 1 differ" in error
    assert "'torch': '1.0'" in error


def test_another_scan_is_refused(made, tmp_path, capsys):
    _, log, _ = made
    other = make_phantom(4, shape_dhw=(8, 16, 16)).volume
    path = tmp_path / "other.nii.gz"
    write_volume(other.array.astype(np.int16), other.grid, path)
    assert main(["replay", str(log), str(path), "--device", "cpu"]) == 2
    assert "another scan" in capsys.readouterr().err
