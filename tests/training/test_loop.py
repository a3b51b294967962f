import itertools
import json
import math

import pytest
import torch

from clickvol.datasets.samples import MAX_CLICKS, PatchBatch, PatchPrompts
from clickvol.errors import TrainingError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.shapes import PADDING_LABEL
from clickvol.training import loop
from clickvol.training.checkpoints import Checkpoints
from clickvol.training.config import TrainConfig
from clickvol.training.loop import Harness, fit
from clickvol.training.processes import Processes
from clickvol.training.run_log import RunLog
from clickvol.training.schedule import Schedule
from clickvol.training.state import TrainState
from clickvol.training.tasks.step import TrainingStep
from reference.compare import noise
from reference.launched_runs import relative_difference
from reference.training_batches import training_batch


def make_config(**sections):
    content = {
        "model": {"id": "t", "title": "t", "size": "tiny"},
        "sampling": {"corrected_click_share": 0.0},
        "optimiser": {"steps": 4, "warmup_steps": 0},
        "run": {"folder": "unused", "precision": "float32"},
    }
    for name, change in sections.items():
        content[name] = content[name] | change
    return TrainConfig.model_validate(content)


def make_state():
    torch.manual_seed(6)
    network = LiftedSegmenter(promise3d_recipe("clickvol", "tiny").network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=0.0, fused=True)
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    return TrainState(step=0, network=network, optimiser=optimiser, average=average)


def make_batch(seed=0):
    label = torch.zeros(2, 1, 16, 16, 16, dtype=torch.uint8)
    label[:, :, 4:12, 5:11, 3:13] = 1
    points = torch.zeros(2, MAX_CLICKS, 3)
    points[:, 0] = torch.tensor([8.0, 8.0, 8.0])
    labels = torch.full((2, MAX_CLICKS), PADDING_LABEL)
    labels[:, 0] = 1
    patch = noise(2, 1, 16, 16, 16, seed=seed) + label
    prompts = PatchPrompts(points, labels, torch.zeros(2, 1, 16, 16, 16))
    return PatchBatch(patch, label, prompts, torch.tensor([3, 4]))


def run(state, batches, config, folder, recipe=None, text=None, validator=None):
    reported = []
    folder.mkdir(exist_ok=True)
    recipe = recipe or promise3d_recipe("clickvol", "tiny")
    step = TrainingStep(state.network, recipe, config.sampling, config.run.seed, text)
    first = state.step
    with RunLog(folder, first) as log:
        harness = Harness(
            processes=Processes(0, 1, torch.device("cpu")),
            schedule=Schedule.of(config.optimiser, 1, 1, config.run.minutes),
            last_step=state.step + len(batches) // config.optimiser.accumulate,
            checkpoints=Checkpoints(folder, "{}"),
            log=log,
            validator=validator,
            report=reported.append,
            remake=lambda number: [batches[number - first]],
        )
        fit(state, step, batches, config, harness)
    return [figures for figures in reported if "loss" in figures]


def test_each_step_uses_its_rate(tmp_path):
    state = make_state()
    config = make_config(optimiser={"steps": 4, "warmup_steps": 2, "learning_rate": 0.01})
    run(state, [make_batch()], config, tmp_path)
    assert [g["lr"] for g in state.optimiser.param_groups] == [pytest.approx(0.005)]
    run(state, [make_batch()], config, tmp_path)
    assert [g["lr"] for g in state.optimiser.param_groups] == [pytest.approx(0.01)]


def test_the_loss_falls(tmp_path, log_every_second_step):
    config = make_config(optimiser={"learning_rate": 0.003, "steps": 20})
    reported = run(make_state(), [make_batch()] * 12, config, tmp_path)
    assert [figures["step"] for figures in reported] == [1, 2, 4, 6, 8, 10, 12]
    assert reported[-1]["loss"] < 0.8 * reported[0]["loss"]
    assert all(0 <= figures["dice"] <= 1 for figures in reported)


def test_the_log_is_what_was_reported(tmp_path, log_every_second_step):
    reported = run(make_state(), [make_batch()] * 4, make_config(), tmp_path)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    # The first step is told, so that one knows how long it will take, but is not a figure of 2 steps.
    assert [json.loads(line) for line in lines] == reported[1:]


def test_a_young_average_follows_closely(tmp_path):
    state = make_state()
    before = {name: value.clone() for name, value in state.average.items()}
    run(state, [make_batch()], make_config(optimiser={"average_decay": 0.998}), tmp_path)
    for name, value in state.network.named_parameters():
        # After step 1 the decay is (1 + 1) / (10 + 1).
        expected = before[name] * 2 / 11 + value.detach() * 9 / 11
        torch.testing.assert_close(state.average[name], expected, rtol=0, atol=1e-6)


def test_an_average_without_memory_is_the_network(tmp_path):
    state = make_state()
    run(state, [make_batch()] * 2, make_config(optimiser={"average_decay": 0.0}), tmp_path)
    for name, value in state.network.named_parameters():
        torch.testing.assert_close(state.average[name], value.detach(), rtol=0, atol=1e-7)


def test_gradients_are_clipped(tmp_path):
    state = make_state()
    run(state, [make_batch()], make_config(optimiser={"max_gradient_norm": 1e-3}), tmp_path)
    squares = [p.grad.square().sum() for p in state.network.parameters()]
    assert float(torch.stack(squares).sum().sqrt()) == pytest.approx(1e-3, rel=1e-3)


def prompts_seen(monkeypatch):
    """Record the labels of every decoding."""
    seen = []
    original = LiftedSegmenter.decode

    def record(self, encoded, prompts, prior=None):
        seen.append((prompts.points_dhw.clone(), prompts.labels.clone()))
        return original(self, encoded, prompts, prior)

    monkeypatch.setattr(LiftedSegmenter, "decode", record)
    return seen


def test_without_correction_the_given_clicks_are_used(tmp_path, monkeypatch):
    seen = prompts_seen(monkeypatch)
    run(make_state(), [make_batch()], make_config(), tmp_path)
    assert len(seen) == 1
    assert torch.equal(seen[0][1], make_batch().prompts.labels)


def test_a_correction_is_one_more_click_into_the_error(tmp_path, monkeypatch):
    seen = prompts_seen(monkeypatch)
    config = make_config(sampling={"corrected_click_share": 1.0})
    batch = make_batch()
    run(make_state(), [batch], config, tmp_path)
    (_, before), (points, after) = seen
    assert torch.equal(before, batch.prompts.labels)
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 2:] == PADDING_LABEL).all()
    for sample in (0, 1):
        d, h, w = points[sample, 1].long().tolist()
        # An object voxel that was missed, or another that was taken: the label says which.
        assert after[sample, 1] == batch.label[sample, 0, d, h, w]
    # The batch of the loader is left as it was.
    assert torch.equal(batch.prompts.labels, make_batch().prompts.labels)


def test_no_free_slot_means_no_correction(tmp_path, monkeypatch):
    seen = prompts_seen(monkeypatch)
    batch = make_batch()
    batch.prompts.labels[:] = 1
    run(make_state(), [batch], make_config(sampling={"corrected_click_share": 1.0}), tmp_path)
    assert torch.equal(seen[1][1], batch.prompts.labels)


def test_bfloat16_trains_too(tmp_path, log_every_second_step):
    config = make_config(run={"precision": "bfloat16"})
    state = make_state()
    reported = run(state, [make_batch()] * 2, config, tmp_path)
    assert math.isfinite(reported[0]["loss"])
    assert {p.dtype for p in state.network.parameters()} == {torch.float32}


def test_checkpoints_come_at_their_steps_and_at_the_end(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(
        "clickvol.training.checkpoints.Checkpoints.save", lambda _, state: steps.append(state.step)
    )
    run(make_state(), [make_batch()] * 5, make_config(run={"checkpoint_every": 2}), tmp_path)
    assert steps == [2, 4, 5]


def test_minutes_end_a_run_and_a_checkpoint_comes_each_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.time, "monotonic", itertools.count(1000.0, 25.0).__next__)
    saved, state = [], make_state()
    monkeypatch.setattr(Checkpoints, "save", lambda _, state: saved.append((state.step, state.seconds)))
    config = make_config(
        optimiser={"steps": 100, "learning_rate": 1.0}, run={"minutes": 2.0, "checkpoint_every": 1000}
    )
    reported = run(state, [make_batch()] * 20, config, tmp_path)
    # 25 s a step: a checkpoint at the first after each minute, and after 125 s the end.
    assert saved == [(3, 75.0), (5, 125.0)]
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"] == 5
    # The last step began after 100 of 120 s.
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 100 / 120))
    assert reported[-1]["learning_rate"] == pytest.approx(cosine)


def clicks_seen(monkeypatch):
    seen = []
    original = LiftedSegmenter.decode

    def record(self, encoded, prompts, prior=None):
        seen.append(prompts)
        return original(self, encoded, prompts, prior)

    monkeypatch.setattr(LiftedSegmenter, "decode", record)
    return seen


def test_a_published_recipe_draws_its_own_clicks(monkeypatch, tmp_path):
    seen = clicks_seen(monkeypatch)
    batch = make_batch()
    batch.label[1] = 0
    released = promise3d_recipe("released", "tiny")
    run(make_state(), [batch], make_config(optimiser={"steps": 1}), tmp_path, released)
    (prompts,) = seen
    assert prompts.points_dhw.shape == (2, 30, 3)
    assert prompts.labels[0].tolist() == [1] * 10 + [0] * 20
    # Without an object there are none inside.
    assert prompts.labels[1].tolist() == [PADDING_LABEL] * 10 + [0] * 20
    d, h, w = prompts.points_dhw[0, :10].long().T
    assert batch.label[0, 0, d, h, w].all()


class PutsTheStepAside:
    def loss(self, step):
        step.eval()
        return 1.0


def test_a_published_recipe_draws_its_own_clicks_after_a_validation_too(monkeypatch, tmp_path):
    seen = clicks_seen(monkeypatch)
    config = make_config(run={"validate_every": 1})
    released = promise3d_recipe("released", "tiny")
    run(make_state(), [make_batch()] * 2, config, tmp_path, released, validator=PutsTheStepAside())
    assert [prompts.labels.shape for prompts in seen] == [(2, 30), (2, 30)]


def test_rounds_of_a_step_are_one_larger_batch(tmp_path):
    # The gradient of the first step, not clipped: clipping and AdamW would hide a wrong factor.
    gradients = []
    for accumulate, batches in (
        (1, [training_batch(2)]),
        (2, [training_batch(2, only=n) for n in (0, 1)]),
    ):
        state = make_state()
        config = make_config(optimiser={"accumulate": accumulate, "max_gradient_norm": 1e9})
        run(state, batches, config, tmp_path / str(accumulate))
        assert state.step == 1
        moments = state.optimiser.state.values()
        gradients.append(torch.cat([moment["exp_avg"].flatten() for moment in moments]).double())
    assert relative_difference(gradients[1], gradients[0]) < 1e-4


def test_a_round_that_is_left_over_is_no_step(tmp_path):
    state = make_state()
    run(state, [make_batch()] * 3, make_config(optimiser={"accumulate": 2}), tmp_path)
    assert state.step == 1


def test_each_part_is_clipped_by_itself(tmp_path):
    state = make_state()
    change = {"max_gradient_norm": 1e-3, "clipping": "parts"}
    run(state, [make_batch()], make_config(optimiser=change), tmp_path)
    norms = {
        name: float(torch.stack([p.grad.square().sum() for p in part.parameters()]).sum().sqrt())
        for name, part in state.network.named_children()
    }
    assert set(norms) >= {"image_encoder", "prompt_encoder", "mask_decoder"}
    assert list(norms.values()) == pytest.approx([1e-3] * len(norms), rel=1e-3)


def test_nothing_is_read_back_from_the_device_between_two_logs(tmp_path, monkeypatch):
    """What would make a GPU wait: every way from a tensor to a number or an array."""
    reads = []
    for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "nonzero"):
        original = getattr(torch.Tensor, name)

        def counted(self, *rest, original=original, name=name, **more):
            reads.append(name)
            return original(self, *rest, **more)

        monkeypatch.setattr(torch.Tensor, name, counted)
    config = make_config(sampling={"corrected_click_share": 1.0}, run={"checkpoint_every": 1000})
    monkeypatch.setattr("clickvol.training.checkpoints.Checkpoints.save", lambda *_: None)
    run(make_state(), [make_batch()] * 12, config, tmp_path)
    # After the first step, after the last, and whether the weights are fit to be kept.
    assert reads == ["tolist", "tolist", "__bool__"]


def test_a_step_that_is_no_number_is_named_however_late_it_is_read(tmp_path):
    bad = make_batch()
    bad.patch[0, 0, 3, 3, 3] = float("nan")
    batches = [make_batch()] * 5
    batches[2] = bad
    state = make_state()
    with pytest.raises(TrainingError, match=r"nan at step 3; its batch is in .*bad_batch_step3_process0\.pt"):
        run(state, batches, make_config(), tmp_path)
    (kept,) = torch.load(tmp_path / "bad_batch_step3_process0.pt", weights_only=True)
    assert torch.isnan(kept["patch"]).sum() == 1
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("steps_done", "advice"),
    [(0, "go on from the checkpoint before with the same command"), (4, "begin with --fresh and a lower")],
)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_told(tmp_path, steps_done, advice):
    bad = make_batch()
    bad.patch[:] = float("nan")
    state = make_state()
    state.step = steps_done
    config = make_config(optimiser={"steps": 9})
    with pytest.raises(TrainingError, match=advice):
        run(state, [bad] * 9, config, tmp_path)


def test_weights_that_are_no_numbers_are_not_kept(tmp_path):
    state = make_state()
    parameter = next(state.network.parameters())

    def break_it(gradient):
        return gradient * float("nan")

    parameter.register_hook(break_it)
    with pytest.raises(TrainingError, match=r"weights are no numbers after step 1; go on from the checkpoint"):
        run(state, [make_batch()], make_config(), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_float16_scales_the_loss_and_leaves_gradients_as_they_are(tmp_path):
    state = make_state()
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run(state, [make_batch()], make_config(run={"precision": "float16"}), tmp_path)
    squares = [p.grad.square().sum() for p in state.network.parameters()]
    assert float(torch.stack(squares).sum().sqrt()) == pytest.approx(1.0, rel=1e-3)
    assert state.step == 1
