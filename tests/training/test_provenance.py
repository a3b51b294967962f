import json

import numpy as np

from clickvol.training.config import TrainConfig
from clickvol.training.provenance import write_provenance
from clickvol.training.start import hash_of_data
from reference.evaluation_sets import block_arrays, write_set


def config_of(**data):
    content = {
        "model": {"id": "t", "title": "t", "size": "tiny"},
        "data": data,
        "optimiser": {"steps": 1},
        "run": {"folder": "unused"},
    }
    return TrainConfig.model_validate(content)


def test_the_hash_is_that_of_the_prepared_sets_wherever_they_lie(tmp_path):
    write_set(tmp_path / "here" / "a", {"x": block_arrays()})
    write_set(tmp_path / "here" / "b", {"x": block_arrays(seed=1)})
    folders = [{"path": name, "modality": "CT", "source": "me"} for name in ("a", "b")]
    both = hash_of_data(config_of(root=tmp_path / "here", folders=folders))
    one = hash_of_data(config_of(root=tmp_path / "here", folders=folders[:1]))
    (tmp_path / "here").rename(tmp_path / "there")
    assert hash_of_data(config_of(root=tmp_path / "there", folders=folders)) == both
    assert len({both, one, hash_of_data(config_of(phantoms=2))}) == 3


def test_the_file_says_command_versions_and_data(tmp_path):
    write_provenance(tmp_path, "clickvol train x.toml", "abc", 2)
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert content["command"] == "clickvol train x.toml"
    assert content["data_sha256"] == "abc"
    assert content["machine"]["processes"] == 2
    assert content["packages"]["numpy"] == np.__version__
