"""A prepared data set goes to another folder, and its source away."""

import json
import shutil

import pytest

from clickvol.cli.app import main
from reference.evaluation_sets import write_phantoms, write_raw


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["native", "7"])
def test_a_moved_set_is_evaluated_as_before(tmp_path, spacing):
    raw = write_phantoms(tmp_path / "phantoms", write=write_raw)
    words = ("data", "prepare", "msd", raw, "-o", tmp_path / "here" / "set", "--spacing", spacing)
    (tmp_path / "here").mkdir()
    assert main([*map(str, words)]) == 0

    def scores(data, report):
        words = ("evaluate", "ball:25", "--data", data, "--split", "all", "--clicks", "1,2", "--seeds", 1)
        assert main([*map(str, words), "-o", str(tmp_path / report)]) == 0
        lines = (tmp_path / report / "results.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]

    before = scores(tmp_path / "here" / "set", "before")
    assert len(before) == 4
    shutil.rmtree(raw)
    (tmp_path / "here").rename(tmp_path / "there")
    assert scores(tmp_path / "there" / "set", "after") == before
