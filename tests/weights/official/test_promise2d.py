"""Import of ProMISe-2D files: the layers of a ResNet with other names, in the usual order of such networks."""

import pytest
import torch

from clickvol.errors import DamagedWeightsError
from clickvol.methods.promise2d import Promise2d, promise2d_network
from clickvol.weights.load import load_network
from clickvol.weights.official import promise2d as official
from clickvol.weights.official.importing import import_checkpoint

PRESET = "tiny"


@pytest.fixture(autouse=True)
def _tiny_is_known(monkeypatch):
    """SAM's smallest file has 375 MB: the tiny network stands in for it."""
    monkeypatch.setattr(official, "recognise_preset", lambda _: PRESET)


def network(mode, num_points=3):
    torch.manual_seed(0)
    made = Promise2d(
        promise2d_network(PRESET, mode, form="resnet", last_layer="default", num_points=num_points)
    )
    for name, value in made.state_dict().items():
        if "running" in name or "norm" in name:
            value.uniform_(0.5, 1.5)
    return made.eval()


def other_names(state, mode, *, start="module."):
    """Return a state under names that say nothing, with the spare head of the released ResNet."""
    renamed, numbers = {}, {}
    for name, value in state.items():
        if name.startswith("sam."):
            renamed[f"{start}{name.removeprefix('sam.')}"] = value
            continue
        prefix, _, last = name.rpartition(".")
        number = numbers.setdefault(prefix, len(numbers))
        renamed[f"{start}extra.layer{number}.{last}"] = value
    if mode != "ips":
        renamed[f"{start}extra.second_head.weight"] = torch.zeros(128, 64)
        renamed[f"{start}extra.second_head.bias"] = torch.zeros(128)
    return renamed


@pytest.mark.parametrize("mode", ["apm", "ips", "promise"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_with_other_names_gives_the_same_masks(tmp_path, mode, wrapped):
    original = network(mode)
    content = other_names(original.state_dict(), mode)
    torch.save({"model": content, "epoch": 3} if wrapped else content, tmp_path / "promise.pth")
    imported = import_checkpoint(tmp_path / "promise.pth", tmp_path / "out")
    assert imported.card.method == "promise2d"
    assert imported.card.id == f"promise2d-official-{mode}"
    assert imported.dropped == (() if mode == "ips" else ("extra.second_head, which nothing uses",))
    _, made = load_network(str(imported.card_path), Promise2d)
    assert made.config == original.config
    for name, value in original.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    whole = other_names(network("promise").state_dict(), "promise")
    for change in ("missing", "left over", "another kind"):
        content = dict(whole)
        if change == "missing":
            del content[next(name for name in content if name.endswith("mask_tokens.weight"))]
        elif change == "left over":
            content["module.extra.more.weight"] = torch.zeros(7, 5)
        else:
            content["module.extra.scale.gamma"] = torch.zeros(4)
        torch.save(content, tmp_path / "promise.pth")
        with pytest.raises(DamagedWeightsError, match="nothing was written; 1 faults"):
            import_checkpoint(tmp_path / "promise.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
