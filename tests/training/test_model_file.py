from dataclasses import replace

import numpy as np
import pytest

from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.preprocessing.intensity import IntensityScale
from clickvol.training.config import TrainConfig
from clickvol.training.model_file import fixed_intensity


def config_of(intensity):
    return TrainConfig.model_validate(
        {
            "model": {"id": "t", "title": "t"},
            "data": {"intensity": intensity},
            "optimiser": {"steps": 1},
            "run": {"folder": "r"},
        }
    )


def case_of(*scale):
    array = np.zeros((4, 4, 4), np.int16)
    volume = Volume(array, VolumeGrid(array.shape, np.eye(4)), "CT")
    label = np.ones((4, 4, 4), np.uint8)
    return replace(LabelledVolume.of(volume, label), scale=IntensityScale(*scale, outside=scale[0]))


def test_the_constants_of_the_data_set_are_the_models():
    colon = (-57.0, 175.0, 65.175035, 32.651197)
    plan = fixed_intensity(config_of("set"), [case_of(*colon), case_of(*colon)])
    assert plan.model_dump() == {
        "clip": (-57.0, 175.0),
        "mean": 65.175035,
        "deviation": 32.651197,
    }


def test_the_scale_of_the_package_needs_none():
    assert fixed_intensity(config_of("scan"), [case_of(0, 1, 0, 1), case_of(0, 2, 0, 1)]) is None


def test_two_sets_of_constants_have_no_place_in_one_model():
    with pytest.raises(ConfigError, match="2 different sets of constants"):
        fixed_intensity(config_of("set"), [case_of(0, 1, 0, 1), case_of(0, 2, 0, 1)])
