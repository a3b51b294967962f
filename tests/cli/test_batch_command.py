import csv
import json

import nibabel
import numpy as np
import pytest

from reference.dask_processes import address_of, scheduler_and_worker


@pytest.fixture
def manifest(scan, tiny_model, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(
        "scan,click,space,output,modality,model\n"
        f'{scan.name},"20,18,10",ijk,a/first.nii.gz,CT,{tiny_model}\n'
        f'none.nii.gz,"20,18,10",ijk,second.nii.gz,CT,{tiny_model}\n'
        f'{scan.name},"10,4,10;2,2,2:-",ras,third.nrrd,CT,{tiny_model}\n'
    )
    return path


def test_a_batch_writes_what_segment_writes(run, manifest, scan, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = run("batch", manifest, "-o", tmp_path / "out", "--device", "cpu")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: 1 of 3 rows failed; {tmp_path}/out/summary.csv says why, and the same command again tries "
        "them again\n"
    )
    with (tmp_path / "out/summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "none.nii.gz does not exist" in rows[1]["error"]
    assert (rows[0]["model"], rows[0]["modality"]) == ("tiny", "CT")
    alone = run(
        "segment", scan, "--click", "20,18,10", "-o", tmp_path / "alone.nii.gz", "--model", tiny_model,
        "--modality", "CT", "--device", "cpu", "--json",
    )  # fmt: skip
    expected = nibabel.load(tmp_path / "alone.nii.gz")
    result = nibabel.load(tmp_path / "out/a/first.nii.gz")
    assert np.array_equal(result.get_fdata(), expected.get_fdata())
    assert np.array_equal(result.affine, expected.affine)
    assert int(rows[0]["voxels"]) == json.loads(alone.out)["voxels"] == result.get_fdata().sum()
    text = manifest.read_text().replace("none.nii.gz", scan.name).splitlines(keepends=True)
    manifest.write_text("".join(text[:2]))  # the first row alone, which is done
    again = run("batch", manifest, "-o", tmp_path / "out")
    assert again == (0, f"{tmp_path}/out/summary.csv: 1 rows done, 1 of them earlier\n", "")
    assert run("batch", manifest, "-o", tmp_path / "out", "--quiet").out == ""


def test_a_batch_on_a_cluster_writes_the_same(run, manifest, scan, tiny_model, tmp_path):
    text = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join([text[0], text[1], text[3]]))
    (tmp_path / "cluster").mkdir()
    with scheduler_and_worker(tmp_path / "cluster") as (file, _):
        address_of(file)
        done = run("batch", manifest, "-o", tmp_path / "there", "--device", "cpu", "--scheduler", file)
    assert done == (0, f"{tmp_path}/there/summary.csv: 2 rows done, 0 of them earlier\n", "")
    assert run("batch", manifest, "-o", tmp_path / "here", "--device", "cpu", "--quiet").code == 0
    for name in ("a/first.nii.gz", "third.nrrd"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_mistakes_in_words_are_answered_in_a_line(run, manifest, tmp_path):
    out = tmp_path / "out"
    for words, message in [
        (["--workers", "0"], "--workers"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "exclude each other"),
    ]:
        done = run("batch", manifest, "-o", out, *words)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
        assert done.err.count("\n") == 1
    done = run("batch", tmp_path / "none.csv", "-o", out)
    assert (done.code, "cannot read the manifest" in done.err) == (2, True)
    assert not out.exists()
