"""A CUDA device against the CPU; what is compared is rehearsed on the CPU alone."""

import pytest
import torch

from clickvol.datasets.sampling import PatchSampling
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.training import loop
from clickvol.training.run import train_from_config
from clickvol.training.tasks.step import TrainingStep
from reference.launched_runs import relative_difference
from reference.training_batches import training_batch

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


def one_step(device, preset):
    """Return loss, Dice, gradient and weights after one step of plain descent, on the CPU."""
    torch.manual_seed(1)
    recipe = promise3d_recipe(preset, "tiny")
    step = TrainingStep(LiftedSegmenter(recipe.network), recipe, PatchSampling(corrected_click_share=0.0), 3)
    step.to(device)
    optimiser = torch.optim.SGD(step.parameters(), lr=1e-2)
    loss, overlap, _ = step(training_batch(2).to(torch.device(device)), 0)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in step.parameters() if p.grad is not None]).double().cpu()
    optimiser.step()
    weights = torch.cat([p.detach().flatten() for p in step.parameters()]).double().cpu()
    return loss.detach().cpu(), overlap.cpu(), gradient, weights


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("preset", ["clickvol", "released"])
def test_loss_gradient_and_step_are_those_of_the_cpu(device, preset):
    ours, reference = one_step(device, preset), one_step("cpu", preset)
    torch.testing.assert_close(ours[0], reference[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], reference[1], rtol=0, atol=1e-2)
    assert relative_difference(ours[2], reference[2]) < 1e-2
    assert relative_difference(ours[3], reference[3]) < 1e-4
    assert reference[2].norm() > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-2), ("bfloat16", 5e-2)])
def test_a_run_launched_as_graphs_learns_what_one_without_does(write_config, monkeypatch, precision, bound):
    made, kept = [], {}

    def noted(*arguments, make=loop.make_descend):
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(loop, "make_descend", noted)
    for name in ("true", "false"):
        path, folder = write_config(name)
        settings = ["run.device=cuda", f"run.precision={precision}", f"run.cuda_graphs={name}"]
        # Stopped on the way, so that the rate and AdamW's state come from a checkpoint, too.
        train_from_config(path, [*settings, "optimiser.steps=16"], max_steps=9)
        train_from_config(path, [*settings, "optimiser.steps=16"])
        content = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
        kept[name] = torch.cat([v.double().flatten() for v in content.values() if v.is_floating_point()]).cpu()
    assert all(each.is_on for each in made[:2])
    assert made[1].graphs
    assert relative_difference(kept["true"], kept["false"]) < bound
