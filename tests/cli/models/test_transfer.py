import json

import pytest
import torch

from clickvol.methods.sam2d import Sam2d, sam2d_preset
from reference import seeded_official as so


@pytest.fixture
def promise(tmp_path):
    path = tmp_path / "best.pth.tar"
    torch.save(so.make_checkpoint(so.TINY), path)
    return path


def mistake(outcome):
    """Return the one line that a mistake of the user ends with."""
    code, out, err = outcome
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    return err


def test_import_says_what_it_made_and_what_it_left_out(run, promise, tmp_path):
    folder = tmp_path / "m"
    words = ("models", "import", promise, "--method", "promise3d", "--dataset", "colon")
    code, out, err = run(*words, "-o", folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    name = "promise3d-official-colon"
    assert lines[0] == f"{name}: ProMISe-3D, weights of its authors: colon tumours on CT"
    assert lines[1] == f"card        {folder}/{name}.json"
    assert lines[2].startswith(f"weights     {folder}/{name}.safetensors (")
    assert lines[3].endswith("they give no licence; ask them before use")
    assert lines[4] == "left out    the shift masks, which follow from the sizes"
    assert run("models", "show", folder).code == 0


def test_import_as_json(run, promise, tmp_path):
    code, out, err = run("models", "import", promise, "-o", tmp_path / "m", "--id", "x", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["id"], result["method"], result["intensity"]) == ("x", "promise3d", None)
    assert result["weights"] == str(tmp_path / "m" / "x.safetensors")
    assert len(result["left_out"]) == 2


def test_without_a_data_set_a_note_says_so(run, promise, tmp_path):
    _, _, err = run("models", "import", promise, "-o", tmp_path / "m")
    assert err == "note: scans will get this package's own scale; --dataset gives the published one\n"


def test_export_says_what_is_random(run, promise, tmp_path):
    run("models", "import", promise, "-o", tmp_path / "m")
    code, out, err = run("models", "export", tmp_path / "m", "-o", tmp_path / "out.pth.tar")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}/out.pth.tar: layout of promise3d, ")
    assert "is random, from a fixed seed: prompt encoders 0 to 2" in out
    code, out, _ = run("models", "export", tmp_path / "m", "-o", tmp_path / "o.pth.tar", "--json")
    assert json.loads(out)["layout"] == "promise3d"
    assert json.loads(out)["bytes"] == (tmp_path / "o.pth.tar").stat().st_size


def test_export_of_a_model_with_options_of_ours(run, tiny_model, tmp_path):
    err = mistake(run("models", "export", tiny_model, "-o", tmp_path / "x.pth.tar"))
    assert "the layout of promise3d cannot hold" in err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def wrong_files(promise, tmp_path):
    content = promise.read_bytes()
    (tmp_path / "cut.pth.tar").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pth").write_text("hello\nworld\n")
    torch.save(Sam2d(sam2d_preset("tiny")).state_dict(), tmp_path / "sam.pth")
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cut.pth.tar"], "is cut off"),
        (["text.pth"], "no file of torch.save"),
        (["none.pth"], "there is no file"),
        (["sam.pth", "--method", "promise3d"], "is a checkpoint of the method sam2d"),
        (["best.pth.tar", "--method", "sam3d_adapter"], "is a checkpoint of the method promise3d"),
        (["best.pth.tar", "--method", "sam"], "choose one of promise3d, sam3d_adapter, promise2d, sam2d"),
        (["best.pth.tar", "--dataset", "lung"], "choose one of colon, pancreas, lits, kits"),
        (["best.pth.tar", "--id", "a/b"], "cannot be an id"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, wrong_files, words, expected):
    before = sorted(wrong_files.iterdir())
    file, *others = words
    err = mistake(run("models", "import", wrong_files / file, *others, "-o", wrong_files / "m"))
    assert expected in err
    assert sorted(wrong_files.iterdir()) == before


def test_a_folder_that_is_a_file(run, wrong_files, promise):
    err = mistake(run("models", "import", promise, "-o", wrong_files / "file"))
    assert "cannot make the folder" in err
    assert (wrong_files / "file").read_text() == "mine"


def test_what_is_missing_in_the_words(run, promise):
    assert "Missing option" in mistake(run("models", "import", promise))
    assert "Missing argument" in mistake(run("models", "export", "-o", "x"))
