import json
import signal
import time

import numpy as np
import pytest
from PIL import Image

from clickvol.cli.experiments.evaluate import parse_numbers, parse_tolerances
from clickvol.errors import ConfigError
from reference.evaluation_sets import write_phantoms
from reference.forked_program import ForkedProgram


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data") / "phantoms")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_seconds(path):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in lines(path)]


@pytest.mark.slow
def test_the_report_of_two_phantoms_with_a_ball_and_a_network(run, phantoms, tmp_path, tiny_model):
    report = tmp_path / "report"
    words = ("evaluate", "ball:25", tiny_model, "--data", phantoms, "--split", "all")
    numbers = ("--clicks", "1", "--seeds", 1, "--reference", "ball 25 mm", "--robustness")
    code, out, err = run(*words, *numbers, "-o", report)
    assert (code, err) == (0, "")
    assert out == (f"{report / 'report.md'}: 20 scores of 2 methods, 0 failures, 0 cases not evaluated\n")
    records = lines(report / "results.jsonl")
    assert {r["placement"] for r in records} == {"random", "centre", "inside", "edge", "outside"}
    assert {r["modality"] for r in records} == {"CT"}
    page = (report / "report.md").read_text()
    for text in (
        "difference to ball 25 mm",
        "Dice after one click, by where it was put",
        "--reference 'ball 25 mm'",
        "clickvol: one random click in the tumour",
        "tiny (sha256 ",
    ):
        assert text in page, text
    summary = json.loads((report / "summary.json").read_text())
    best = max(row["dice_mean"] for row in summary["scores"])
    assert best == pytest.approx(
        max(
            np.mean([r["dice"] for r in records if (r["model"], r["placement"], r["num_clicks"]) == k])
            for k in {(r["model"], r["placement"], r["num_clicks"]) for r in records}
        )
    )
    pictures = sorted((report / "pictures").glob("*.png"))
    assert len(pictures) == 4  # the worst and the best of two cases, for two methods
    assert np.asarray(Image.open(pictures[0])).std() > 10
    assert all(f"pictures/{picture.name}" in page for picture in pictures)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_to_the_same_files(run, phantoms, tmp_path, tiny_model):
    words = [
        "evaluate", "ball:25", tiny_model, "--data", phantoms, "--split", "all",
        "--clicks", "1,2", "--seeds", 2, "--device", "cpu",
    ]  # fmt: skip
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = ForkedProgram([*words, "-o", killed])
    results = killed / "results.jsonl"
    deadline = time.monotonic() + 120
    while not (results.is_file() and results.read_bytes().count(b"\n") >= 6):
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    program.send_signal(signal.SIGKILL)
    program.communicate()
    done = len(lines(results))
    assert 6 <= done < 16
    with results.open("ab") as file:  # what a kill in the middle of a write leaves
        file.write(results.read_bytes().splitlines()[-1][:50])
    assert run(*words, "-o", killed)[0] == 0
    assert run(*words, "-o", whole)[0] == 0
    assert len(lines(results)) == 16
    assert without_seconds(results) == without_seconds(whole / "results.jsonl")
    for name in ("audit.jsonl", "settings.json", "not_evaluated.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    masks = sorted(path.relative_to(whole) for path in (whole / "masks").rglob("*.nii.gz"))
    assert len(masks) == 4
    for path in masks:
        assert (killed / path).read_bytes() == (whole / path).read_bytes(), path
    left = {path.relative_to(killed) for path in killed.rglob("*") if path.is_file()}
    assert left == {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clicks", "1,x"], "cannot read --clicks '1,x'"),
        (["--clicks", "3,1"], "give rising ones"),
        (["--protocol", "nobody"], "there is no protocol 'nobody'"),
        (["--tolerance", "3"], "choose one of 1, 2, 5"),
        (["--nsd-tolerances", "1,3"], "the tolerance 2 mm is not recorded; choose one of 1, 3"),
        (["--nsd-tolerances", "1,mm"], "cannot read --nsd-tolerances '1,mm'"),
        (["--organ-mask", "gt"], "ball 50 mm look at no organ mask; leave --organ-mask out"),
        (["--split", "tests"], "there is no part 'tests' of a data set"),
        (["--reference", "nobody"], "the reference 'nobody' is not evaluated"),
        (["--device", "abacus"], "there is no device 'abacus'"),
    ],
)
def test_a_mistake_is_told_in_one_line(run, phantoms, tmp_path, words, message):
    given = ["--split", "all"] if "--split" not in words else []
    code, out, err = run("evaluate", "ball", "--data", phantoms, "-o", tmp_path / "r", *given, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_numbers_of_clicks_may_be_ranges():
    assert parse_numbers("1,3,5,10") == (1, 3, 5, 10)
    assert parse_numbers("1-4, 8") == (1, 2, 3, 4, 8)
    for text in ("", "1,", "1;2", "-3", "1-2-3"):
        with pytest.raises(ConfigError, match="cannot read"):
            parse_numbers(text)


def test_tolerances_need_not_be_whole():
    assert parse_tolerances("1,2,5") == (1.0, 2.0, 5.0)
    assert parse_tolerances("0.5, 3") == (0.5, 3.0)
    for text in ("", "1,", "1;2"):
        with pytest.raises(ConfigError, match="give rising millimetres"):
            parse_tolerances(text)


def test_the_nsd_is_recorded_at_the_tolerances_asked_for(run, phantoms, tmp_path):
    words = ("evaluate", "ball:25", "--data", phantoms, "--split", "all", "--limit", 1)
    numbers = ("--clicks", 1, "--seeds", 1, "--nsd-tolerances", "3,20", "--tolerance", 3)
    assert run(*words, *numbers, "-o", tmp_path)[0] == 0
    (record,) = lines(tmp_path / "results.jsonl")
    assert [name for name in record if name.startswith("nsd")] == ["nsd_3mm", "nsd_20mm"]
    assert 0 < record["nsd_3mm"] < record["nsd_20mm"]
    assert "--nsd-tolerances 3,20" in (tmp_path / "report.md").read_text()
