import json

import numpy as np
import pytest

from clickvol.methods.tags import tags_recipe
from reference.random_models import write_random_model

CLICK = ("--click", "20,18,10")


@pytest.fixture(scope="module")
def tags_model(tmp_path_factory):
    return write_random_model(tags_recipe("clickvol", "tiny"), tmp_path_factory.mktemp("tags"))


@pytest.fixture
def organ(write_scan, ct_array):
    return write_scan((ct_array > 0).astype(np.uint8), "organ.nii.gz")


def test_the_mask_reaches_the_network(run, scan, organ, tags_model, tmp_path):
    command = ("segment", scan, *CLICK, "--model", tags_model, "--json", "--probability")
    outcomes = []
    for name, words in {"with": ("--organ-mask", organ), "without": ()}.items():
        probability = tmp_path / f"{name}-p.nii.gz"
        outcomes.append(run(*command, probability, "-o", tmp_path / f"{name}.nii.gz", *words))
    assert [outcome.code for outcome in outcomes] == [0, 0]
    with_mask, without = (json.loads(outcome.out) for outcome in outcomes)
    assert not any("organ mask" in line for line in with_mask["warnings"])
    assert any("organ mask" in line for line in without["warnings"])
    written = [(tmp_path / f"{name}-p.nii.gz").read_bytes() for name in ("with", "without")]
    assert written[0] != written[1]


def test_a_model_without_the_channel_says_so_in_one_line(run, scan, organ, tiny_model, tmp_path):
    words = (*CLICK, "--model", tiny_model, "--organ-mask", organ, "-o", tmp_path / "m.nii.gz")
    outcome = run("segment", scan, *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "takes no organ mask" in outcome.err
    assert not (tmp_path / "m.nii.gz").exists()


def test_the_organ_mask_is_not_overwritten(run, scan, organ, tags_model):
    before = organ.read_bytes()
    words = (*CLICK, "--model", tags_model, "--organ-mask", organ, "-o", organ)
    assert run("segment", scan, *words).code == 2
    assert organ.read_bytes() == before


def test_a_missing_mask_is_said(run, scan, tags_model, tmp_path):
    words = ("--organ-mask", tmp_path / "none.nii.gz", "-o", tmp_path / "m.nii.gz")
    outcome = run("segment", scan, *CLICK, "--model", tags_model, *words)
    assert outcome.code == 2
    assert "none.nii.gz" in outcome.err
