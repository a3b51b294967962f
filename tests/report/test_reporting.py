import shutil

import numpy as np
import pytest

from clickvol.evaluation.plan import EvaluationRequest
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.runner import run_evaluation
from clickvol.io.formats import write_volume
from clickvol.report.reporting import command_of, report_evaluation
from reference.evaluation_sets import block_arrays, oblique_grid, write_set


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    image, label = block_arrays()
    folder = write_set(base / "blocks", {"good": (image, label), "zero": (image, label * 0)})
    predictions = base / "empty masks"
    predictions.mkdir()
    write_volume(np.zeros_like(label), oblique_grid(), predictions / "good.nii.gz")
    request = EvaluationRequest(
        contestants=("ball:8", f"predictions:{predictions}"),
        data=(str(folder),),
        folder=base / "report",
        protocol=read_protocol(num_clicks=(1, 2), seeds=1),
        split="all",
        reference="ball 8 mm",
        device="cpu",
    )
    return run_evaluation(request)


def test_the_command_does_the_same_evaluation(evaluated):
    command = command_of(evaluated.request)
    assert command.startswith("clickvol evaluate ball:8 'predictions:")
    for words in (
        "--split all --fold 0 --protocol clickvol --clicks 1,2 --seeds 1 --tolerance 2",
        "--nsd-tolerances 1,2,5",
        "--reference 'ball 8 mm'",
    ):
        assert words in command


@pytest.mark.slow
def test_the_page_says_where_numbers_come_from_and_what_is_left_out(evaluated):
    report_evaluation(evaluated)
    folder = evaluated.request.folder
    page = (folder / "report.md").read_text()
    for text in ("1 per scan, seeds 0 to 0", "ball 8 mm (radius 8 mm)", "blocks (2 cases, sha256 "):
        assert text in page, text
    assert "Not evaluated: blocks zero: " in page
    assert "the mask is empty" in page
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert names == {
        "ball-8-mm-blocks-median.png",
        "empty-masks-blocks-median.png",
        "empty-masks-+-click-blocks-median.png",
    }


@pytest.mark.slow
def test_the_same_evaluation_makes_the_same_report(evaluated):
    folder = evaluated.request.folder
    report_evaluation(evaluated)
    files = [path for path in folder.rglob("*") if path.suffix in (".md", ".csv", ".png", ".json")]
    before = {path: path.read_bytes() for path in files}
    shutil.rmtree(folder / "pictures")
    report_evaluation(evaluated)
    assert {path: path.read_bytes() for path in files} == before
    assert len(before) >= 10
