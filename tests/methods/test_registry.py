"""One list of methods: every id has its page, only the page that is wanted is imported, and a line adds one."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from clickvol import load_model, segment
from clickvol.errors import ConfigError
from clickvol.io.volume import Volume
from clickvol.methods import promise3d, sam3d_adapter, tags
from clickvol.methods.baselines import BaselineSegmenter
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.promise2d import Promise2d, Promise2dConfig
from clickvol.methods.registry import METHODS, MethodPage, baseline_ids, find_method, find_recipe
from clickvol.methods.sam2d import Sam2d, Sam2dConfig
from clickvol.training.config import ModelSection
from clickvol.training.run import train_from_config
from clickvol.weights.card import read_card
from reference.grids import make_grid

KINDS = {
    "promise3d": (LiftedSegmenterConfig, LiftedSegmenter),
    "sam3d_adapter": (LiftedSegmenterConfig, LiftedSegmenter),
    "tags": (LiftedSegmenterConfig, LiftedSegmenter),
    "promise2d": (Promise2dConfig, Promise2d),
    "sam2d": (Sam2dConfig, Sam2d),
}
BASELINES = ("dynunet", "swin_unetr", "unetr", "uxnet3d", "nnformer")
PRESETS = [(page.METHOD_ID, preset) for page in (promise3d, sam3d_adapter, tags) for preset in page.PRESETS]
PRESETS += [(kind, "automatic") for kind in BASELINES]

# A network of one convolution, as somebody would add it: one file.
NEW_BASELINE = """
from dataclasses import dataclass
from typing import Literal

from torch import nn

from clickvol.baselines.baseline import NUM_CLASSES, Baseline


@dataclass(frozen=True, kw_only=True)
class OneLayerConfig:
    kind: Literal["one_layer"] = "one_layer"
    side: int = 3

    def patch_step_dhw(self, patch_shape_dhw):
        return (1, 1, 1)


def build(config, patch_shape_dhw, num_channels):
    return nn.Conv3d(num_channels, NUM_CLASSES, config.side, padding="same")


BASELINE = Baseline(
    config_type=OneLayerConfig, build=build, sizes={"tiny": ((16, 16, 16), OneLayerConfig(side=5))}
)
"""

TRAINING = """
[model]
id = "one"
title = "one layer"
method = "one_layer"
preset = "automatic"
size = "tiny"

[data]
phantoms = 1

[sampling]
kind = "windows"
voxel_mm = 6.0

[optimiser]
steps = 1
batch_size = 1

[run]
folder = "{folder}"
precision = "float32"
"""


@pytest.mark.parametrize("method", KINDS)
def test_what_the_networks_of_a_method_are_made_of(method):
    result = find_method(method)
    assert (result.config_type, result.build) == KINDS[method]


def test_the_methods_and_which_of_them_can_be_trained():
    assert tuple(METHODS) == (*KINDS, *BASELINES)
    assert baseline_ids() == BASELINES
    for method in METHODS:
        if method != "sam2d":
            assert ModelSection(id="t", title="t", method=method).method == method
    with pytest.raises(ValidationError, match="'sam2d' is no method; choose one of promise3d, sam3d_adapter, "):
        ModelSection(id="t", title="t", method="sam2d")


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_every_preset_of_a_3d_method_is_found_and_builds(method, preset):
    recipe = find_recipe(method, preset, "tiny")
    assert (recipe.method, recipe.preset) == (method, preset)
    with torch.device("meta"):
        network = find_method(method).build(recipe.network)
    assert network.config == recipe.network
    assert isinstance(network, BaselineSegmenter) == METHODS[method].is_baseline


def test_an_unknown_method_is_refused_with_the_known_ones():
    baselines = ", ".join(BASELINES)
    known = f"promise3d, sam3d_adapter, tags, promise2d, sam2d, {baselines}"
    with pytest.raises(ConfigError, match=f"no method 'unet'; choose one of {known}$"):
        find_method("unet")
    known = f"promise3d, sam3d_adapter, tags, {baselines}"
    for method in ("sam2d", "unet"):
        with pytest.raises(ConfigError, match=f"no 3D method '{method}'; choose one of {known}$"):
            find_recipe(method, "released", "tiny")


@pytest.mark.parametrize(
    ("method", "presets"),
    [
        ("promise3d", "released"),
        ("sam3d_adapter", "released"),
        ("tags", "released"),
        *[(kind, "automatic") for kind in BASELINES],
    ],
)
def test_an_unknown_preset_or_size_is_refused(method, presets):
    with pytest.raises(ConfigError, match=f"has no preset 'newest'; choose one of {presets}"):
        find_recipe(method, "newest", "tiny")
    with pytest.raises(ConfigError, match="there is no size 'vast'"):
        find_recipe(method, presets, "vast")


def test_a_model_imports_its_own_method_alone_and_no_compiler():
    code = (
        "import sys; from clickvol.weights.load import load_model; load_model(device='cpu'); "
        "print(*[name for name in sys.modules if name.startswith(('clickvol.', 'torch._dynamo'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pages = {page.module for page in METHODS.values()} & set(done.stdout.split())
    # ProMISe-3D is built on 3DSAM-adapter.
    assert pages == {"clickvol.methods.promise3d", "clickvol.methods.sam3d_adapter"}
    assert "clickvol.baselines" not in done.stdout
    # A second of work that only training needs.
    assert "torch._dynamo" not in done.stdout


def test_a_baseline_is_one_file_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "one_layer.py").write_text(NEW_BASELINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METHODS, "one_layer", MethodPage("one_layer", is_baseline=True))

    config = tmp_path / "config.toml"
    config.write_text(TRAINING.format(folder=tmp_path / "run"))
    card = train_from_config(config, [])
    assert read_card(card).is_automatic
    assert json.loads(card.read_text())["network"]["body"] == {"kind": "one_layer", "side": 5}

    model = load_model(card, device="cpu")
    shape = (20, 24, 28)
    grid = make_grid(shape, (6.0,) * 3, order=(2, 1, 0), signs=(1, 1, 1))
    scan = Volume(np.random.default_rng(0).normal(40, 80, shape).astype(np.float32), grid, "CT")
    assert segment(scan, [], model).mask.array.shape == shape
