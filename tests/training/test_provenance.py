import hashlib
import json
from dataclasses import replace

import numpy as np

from clickvol.training.config import TrainConfig
from clickvol.training.provenance import hash_of_cases, write_provenance
from clickvol.training.start import hash_of_data
from reference.labelled import block_case

SCAN = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
LABEL = (SCAN > 12).astype(np.uint8)


def config_of(**data):
    content = {
        "model": {"id": "t", "title": "t", "size": "tiny"},
        "data": data,
        "optimiser": {"steps": 1},
        "run": {"folder": "unused"},
    }
    return TrainConfig.model_validate(content)


def test_the_hash_is_over_name_form_and_values():
    expected = hashlib.sha256(b"a (2, 3, 4) int16 uint8" + SCAN.tobytes() + LABEL.tobytes())
    assert hash_of_cases([("a", SCAN, LABEL)]) == expected.hexdigest()
    turned = SCAN.T.copy().T
    assert not turned.flags["C_CONTIGUOUS"]
    assert hash_of_cases([("a", turned, LABEL)]) == expected.hexdigest()
    others = [("b", SCAN, LABEL)], [("a", SCAN + 1, LABEL)], [("a", SCAN, 1 - LABEL)]
    hashes = {hash_of_cases(list(other)) for other in others}
    assert len(hashes | {expected.hexdigest()}) == 4


def test_where_the_files_lie_does_not_matter():
    case = block_case()
    here, there = (
        [replace(case, volume=replace(case.volume, source=f"/{place}/scan.nii.gz"))]
        for place in ("here", "there")
    )
    assert hash_of_data(config_of(), here) == hash_of_data(config_of(), there)


def test_the_file_says_command_versions_and_data(tmp_path):
    write_provenance(tmp_path, "clickvol train x.toml", "abc", 2)
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert content["command"] == "clickvol train x.toml"
    assert content["data_sha256"] == "abc"
    assert content["machine"]["processes"] == 2
    assert content["packages"]["numpy"] == np.__version__
