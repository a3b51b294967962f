"""Check and time a GPU on a bare machine: torch, numpy, scipy, safetensors, and pydantic's wheels; no network.

    python benchmarks/gpu_check.py -o OUT               # on CUDA, under three minutes
    python benchmarks/gpu_check.py -o OUT --device cpu --small    # the same program, rehearsed on a CPU

Needs neither nibabel, monai, SimpleITK, pydicom nor pytest: `PYTHONPATH=src:WHEELS` is enough, with the
wheels of pydantic, pydantic_core, annotated-types, typing-inspection, typing-extensions, platformdirs and
filelock. Compares the device with the CPU in float32 (forward, loss, gradient, one training step, sampler,
mask of a scan), then times sampler and training steps, the shipped models on a scan, and the networks of
ViT-B size (first click, next click, training step, memory, bfloat16 and float32). Training is compared and
timed launched as CUDA graphs, as `clickvol train` does, and kernel by kernel; and timed with channels_last_3d
and by torch.compile (`run.compiled`). `--only REGEX` runs the lines whose names it finds. "not here" is a line
that this machine cannot do. A check that fails is a line of the table and exit code 1; what went wrong
stands in OUT/gpu_check.json, which is written after every line.
"""

import argparse
import json
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

import clickvol
from clickvol import Click, load_model
from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import StoredScan
from clickvol.datasets.samples import LabelledVolume, PatchBatch
from clickvol.datasets.sampling import PatchSampling
from clickvol.files.atomic import write_text
from clickvol.methods.freezing import freeze_foundation
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.recipe import Recipe
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.metrics.overlap import dice
from clickvol.phantoms.phantom import make_phantom
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.config import TrainConfig
from clickvol.training.loop import make_descend
from clickvol.training.processes import Processes
from clickvol.training.state import TrainState
from clickvol.training.tasks.losses import segmentation_loss
from clickvol.training.tasks.step import TrainingStep

GROUP = "phantoms"

# Published training: 10 clicks inside and 20 anywhere.
NUM_TRAINING_CLICKS = 30


class Check:
    """Runs one line after the other and keeps what came of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.small = options.small
        self.recipe = promise3d_recipe("clickvol", "tiny" if self.small else "small")
        self.side = self.recipe.network.patch_shape_dhw[0]
        self.only = re.compile(options.only)
        self.path = options.output / "gpu_check.json"
        self.lines: list[dict] = []
        options.output.mkdir(parents=True, exist_ok=True)

    def line(self, name: str, work: Callable[[], dict], *, counts: bool = True) -> None:
        """Run a line that is asked for; a failure is written down, a fault where it counts."""
        if not self.only.search(name):
            return
        started = time.perf_counter()
        try:
            result = work()
        except Exception:  # whatever it is, the lines after it still count
            result = {"ok": not counts, "error": traceback.format_exc()}
        result["wall_s"] = round(time.perf_counter() - started, 2)
        self.lines.append({"name": name} | result)
        figures = ", ".join(f"{key} {value:.4g}" for key, value in result.items() if type(value) is float)
        verdict = "FAILED" if not result.get("ok", True) else "not here" if "error" in result else "ok"
        print(f"| {name} | {verdict} | {figures} |", flush=True)
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else platform.processor() or "cpu"
        facts = {"device": name, "torch": torch.__version__, "python": platform.python_version()}
        facts |= {"clickvol": clickvol.__version__, "small": self.small, "lines": self.lines}
        write_text(self.path, json.dumps(facts, indent=1))

    def seconds(self, work: Callable[[], object], repeats: int = 3) -> float:
        """Return the shortest of several calls, after one that warms up; in a rehearsal of one."""
        if not self.small:
            work()
        times = []
        for _ in range(1 if self.small else repeats):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - started)
        return min(times)

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_gb(self) -> float | None:
        """Return the most memory of the device since the last call; None on a CPU."""
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return peak


def stored_phantoms(count: int) -> list[StoredScan]:
    """Return synthetic scans as training reads them."""
    phantoms = [make_phantom(n, shape_dhw=(40, 96, 96), spacing_dhw_mm=(3.3, 2.0, 2.0)) for n in range(count)]
    cases = [LabelledVolume.of(phantom.volume, phantom.truth.array) for phantom in phantoms]
    return [StoredScan.of(case, f"p{n}", GROUP) for n, case in enumerate(cases)]


def relative(ours: Tensor, reference: Tensor) -> float:
    """Return the length of a difference over that of the reference."""
    ours, reference = ours.double().cpu(), reference.double().cpu()
    return float((ours - reference).norm() / reference.norm())


def network_on(check: Check, device: torch.device, model_id: str = "promise3d-lesions") -> LiftedSegmenter:
    """Return a shipped network in float32; in a rehearsal a tiny one with the weights it begins with."""
    if not check.small:
        return load_model(model_id, device=str(device)).network.float()
    torch.manual_seed(0)
    return LiftedSegmenter(check.recipe.network).to(device)


def compare_forward(check: Check) -> dict:
    """Compare the logits of the shipped network on a patch."""
    generator = torch.Generator().manual_seed(1)
    patch = torch.randn(1, 1, *[check.side] * 3, generator=generator)
    prompts = PointPrompts(torch.tensor([[[30.0, 29, 28], [5, 6, 7]]]), torch.tensor([[1, 0]]))
    logits = []
    for device in (torch.device("cpu"), check.device):
        with torch.inference_mode():
            network = network_on(check, device, "promise3d-small").eval()
            given = PointPrompts(prompts.points_dhw.to(device), prompts.labels.to(device))
            logits.append(network(patch.to(device), given).float().cpu())
    difference = relative(logits[1], logits[0])
    return {"ok": difference < 1e-3, "relative_difference": difference}


def training_step(
    check: Check, device: torch.device, scans: list[StoredScan], size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss, gradient and weights after one step of plain descent, float32."""
    torch.manual_seed(0)
    network = network_on(check, device).train().requires_grad_(requires_grad=True)
    sampling = PatchSampling(group_shares={GROUP: 1.0}, corrected_click_share=0.0)
    step = TrainingStep(network, check.recipe, sampling, 3)
    batch = PatchSampler(ScanStore.of(scans, device), sampling, check.side, seed=4).batch(range(size))
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    loss, *_ = step(batch, 0)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    optimiser.step()
    return loss.detach(), gradient, torch.cat([p.detach().flatten() for p in network.parameters()])


def compare_training(check: Check, scans: list[StoredScan]) -> dict:
    """Compare loss, gradient and weights of a training step with prompts of all kinds."""
    size = 1 if check.small else 2
    loss, gradient, weights = training_step(check, check.device, scans, size)
    reference = training_step(check, torch.device("cpu"), scans, size)
    figures = {
        "loss": abs(float(loss) - float(reference[0])),
        "gradient": relative(gradient, reference[1]),
        "weights": relative(weights, reference[2]),
    }
    return {"ok": figures["loss"] < 1e-3 and figures["gradient"] < 2e-2 and figures["weights"] < 1e-4} | figures


def compare_sampler(check: Check, scans: list[StoredScan]) -> dict:
    """Compare a batch of patches with everything on."""
    sampling, size = PatchSampling(group_shares={GROUP: 1.0}), 2 if check.small else 16
    ours, reference = (
        PatchSampler(ScanStore.of(scans, device), sampling, check.side, seed=5).batch(range(size))
        for device in (check.device, torch.device("cpu"))
    )
    values = float((ours.patch.cpu() - reference.patch).abs().max())
    labels = float((ours.label.cpu() != reference.label).float().mean())
    points = float((ours.prompts.labels.cpu() != reference.prompts.labels).float().mean())
    return {"ok": values < 1e-2 and labels < 1e-4 and points == 0, "values": values, "labels": labels}


def compare_mask(check: Check, model_id: str) -> dict:
    """Compare the mask of a phantom, and time the clicks on the device."""
    shape = (20, 40, 40) if check.small else (60, 128, 128)
    phantom = make_phantom(8, shape_dhw=shape, tumour_diameter_mm=40 if check.small else 70)
    clicks = [Click(phantom.inside)]
    reference = ScanPredictor(phantom.volume, load_model(model_id, device="cpu")).predict(clicks).mask.array
    model = load_model(model_id, device=str(check.device))
    if not check.small:
        ScanPredictor(phantom.volume, model).predict(clicks)
    predictor = ScanPredictor(phantom.volume, model)
    started = time.perf_counter()
    mask = predictor.predict(clicks).mask.array
    first = time.perf_counter() - started
    further = check.seconds(lambda: predictor.predict(clicks))
    agreement = float(dice(mask, reference))
    with_truth = float(dice(mask, phantom.truth.array))
    return {
        "ok": agreement > 0.98,
        "dice_with_cpu": agreement,
        "dice_with_truth": with_truth,
        "first_s": first,
        "next_s": further,
    }


class Trainer:
    """Steps of the small network as `clickvol train` takes them; `run` is its section [run]."""

    def __init__(
        self, check: Check, scans: list[StoredScan], size: int, *, most: int = 4, **run: object
    ) -> None:
        self.size, self.device = size, check.device
        self.network = network_on(check, check.device).train().requires_grad_(requires_grad=True)
        sampling = PatchSampling(group_shares={GROUP: 1.0}, max_corrected_clicks=most)
        model, run = {"id": "t", "title": "t"}, {"folder": "."} | run
        config = TrainConfig(model=model, optimiser={"steps": 1}, run=run)
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=True)
        self.state = TrainState(step=0, network=self.network, optimiser=optimiser, average={})
        step = TrainingStep(self.network, check.recipe, sampling, 3, compiled=config.run.compiled)
        self.descend = make_descend(self.state, step, config, Processes(0, 1, check.device))
        self.sampler = PatchSampler(ScanStore.of(scans, check.device), sampling, check.side, seed=6)

    def sample(self) -> PatchBatch:
        """Make the batch of the next step."""
        first = self.state.step * self.size
        return self.sampler.batch(range(first, first + self.size))

    def train(self, rate: float = 1e-4) -> Tensor:
        """Take the next step; return its loss."""
        self.state.set_rate(rate)
        loss, _ = self.descend([self.sample()], self.state.step)
        self.state.step += 1
        return loss.clone()

    @property
    def num_graphs(self) -> int:
        """Kinds of steps that are launched as graphs."""
        return len(getattr(self.descend, "graphs", ()))


def compare_graphs(check: Check, scans: list[StoredScan], precision: str) -> dict:
    """Compare what steps as CUDA graphs learn with what plain ones do, and these with themselves."""
    changes = []
    for graphs in (False, False, True):
        size, count = (1, 1) if check.small else (8, 24)
        trainer = Trainer(check, scans, size, most=1, precision=precision, cuda_graphs=graphs)
        before = parameters_to_vector(trainer.network.parameters()).detach()
        for number in range(count):
            trainer.train(1e-5 * (1 + number))
        changes.append(parameters_to_vector(trainer.network.parameters()).detach() - before)
    again, difference = (relative(ours, changes[0]) for ours in changes[1:])
    is_right = difference <= max(0.2, 3 * again) and trainer.num_graphs == 2 * (check.device.type == "cuda")
    return {"ok": is_right, "graphs_and_plain": difference, "plain_and_plain": again}


def time_training(
    check: Check,
    scans: list[StoredScan],
    size: int,
    *,
    layout: torch.memory_format = torch.contiguous_format,
    compiled: bool = False,
    graphs: bool = False,
) -> dict:
    """Measure samples per second: sampler alone, and with training steps, corrections in a third of them.

    Maps take the layout of the convolutions' kernels.
    """
    precision = "bfloat16" if check.device.type == "cuda" else "float32"
    trainer = Trainer(check, scans, size, precision=precision, cuda_graphs=graphs, compiled=compiled)
    for module in trainer.network.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            module.to(memory_format=layout)
    check.peak_gb()
    sampled = check.seconds(trainer.sample, 5)
    # All numbers of corrections come twice before, so that their graphs are there.
    warm, count = (0, 1) if check.small else (80 if graphs else 20, 40)
    started = time.perf_counter()
    for _ in range(warm):
        trainer.train()
    check.wait()
    warmed, started = time.perf_counter() - started, time.perf_counter()
    losses = [trainer.train() for _ in range(count)]
    launched = time.perf_counter()
    check.wait()
    return {
        "batch": size,
        "samples_per_s": count * size / (time.perf_counter() - started),
        "loss": float(torch.stack(losses).mean()),
        "sampler_alone_per_s": size / sampled,
        "warm_up_s": warmed,
        "host_ms": 1000 * (launched - started) / count,
        "graphs": trainer.num_graphs,
        "peak_gb": check.peak_gb(),
    }


def profile_training(check: Check, scans: list[StoredScan], size: int) -> dict:
    """Print what the device does in four plain steps."""
    trainer = Trainer(check, scans, size, cuda_graphs=False)
    check.seconds(trainer.train)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(4):
            trainer.train()
        check.wait()
    print(profiler.key_averages().table(sort_by="self_device_time_total", row_limit=35), flush=True)
    return {}


def time_vit(check: Check, recipe: Recipe, precision: str) -> dict:
    """Time a network of ViT-B size on one patch: first click, next click, training step."""
    torch.manual_seed(0)
    with check.device:
        network = LiftedSegmenter(recipe.network)
    freeze_foundation(network)
    shape = network.config.patch_shape_dhw
    patch = torch.randn(1, network.config.encoder.num_channels, *shape, device=check.device)
    label = torch.zeros_like(patch[:, :1])
    label[..., shape[0] // 3 : shape[0] // 2, shape[1] // 3 : shape[1] // 2, shape[2] // 3 : shape[2] // 2] = 1

    def prompts(number: int) -> PointPrompts:
        points = torch.full((1, number, 3), shape[0] / 2, device=check.device)
        return PointPrompts(points, torch.ones(1, number, dtype=torch.int64, device=check.device))

    def autocast() -> torch.autocast:
        return torch.autocast(check.device.type, torch.bfloat16, enabled=precision == "bf16")

    check.peak_gb()
    network.eval()
    with torch.inference_mode(), autocast():
        first = check.seconds(lambda: network(patch, prompts(1)))
        encoded = network.encode_image(patch)
        further = check.seconds(lambda: network.decode(encoded, prompts(1)))
    figures = {"first_s": first, "next_s": further, "clicks_gb": check.peak_gb()}
    network.train()
    optimiser = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=4e-4, weight_decay=0.0
    )

    def step() -> None:
        with autocast():
            logits = network(patch, prompts(NUM_TRAINING_CLICKS))
        segmentation_loss(logits.float(), label, recipe.loss).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    figures["step_s"] = check.seconds(step)
    return figures | {"step_gb": check.peak_gb()}


def main() -> None:
    """Parse the command line and run all lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for gpu_check.json")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--small", action="store_true", help="tiny networks and single repeats: a rehearsal")
    parser.add_argument("--only", default="", metavar="REGEX", help="run the lines whose names it finds")
    parser.add_argument("--batches", type=int, nargs="+", default=[], help="time training at these sizes (64)")
    parser.add_argument("--profile", action="store_true", help="print the kernels of a training step, too")
    options = parser.parse_args()
    options.batches = options.batches or [1 if options.small else 64]
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here; --device cpu --small rehearses the program")
    # Equality is of float32; without this a GPU rounds to 10 bits of mantissa.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    check = Check(options)
    print("| check | | figures |\n|---|---|---|", flush=True)
    scans = stored_phantoms(2 if options.small else 6)
    check.line("forward as on the CPU", lambda: compare_forward(check))
    check.line("loss, gradient, step as on the CPU", lambda: compare_training(check, scans))
    check.line("sampler as on the CPU", lambda: compare_sampler(check, scans))
    for precision in ("float32",) if options.small else ("float32", "bfloat16"):
        name = f"training by CUDA graphs as kernel by kernel, {precision}"
        check.line(name, lambda p=precision: compare_graphs(check, scans, p))
    for model_id in ("promise3d-small", "promise3d-lesions"):
        check.line(f"mask of a scan as on the CPU, {model_id}", lambda name=model_id: compare_mask(check, name))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    first, *others = options.batches

    def train(name: str, size: int = first, *, counts: bool = False, **changes: object) -> None:
        check.line(
            f"training of the small network{name}",
            lambda: time_training(check, scans, size, **changes),
            counts=counts,
        )

    train("", counts=True)
    train(", steps as CUDA graphs", graphs=True, counts=True)
    train(", channels_last_3d, as CUDA graphs", layout=torch.channels_last_3d, graphs=True)
    for batch in others:
        train(f", batch {batch}", batch)
        train(f", batch {batch}, steps as CUDA graphs", batch, graphs=True)
    for batch in () if options.small else options.batches:  # for a processor compiling takes minutes
        name = "" if batch == first else f", batch {batch}"
        train(f"{name}, compiled, steps as CUDA graphs", batch, compiled=True, graphs=True)
    if options.profile:
        check.line("kernels of a training step", lambda: profile_training(check, scans, first), counts=False)
    size = "tiny" if options.small else "vit_b"
    recipes = {
        "ProMISe-3D": promise3d_recipe("released", size),
        "3DSAM-adapter": sam3d_adapter_recipe("released", size),
    }
    for name, recipe in recipes.items():
        for precision in ("fp32", "bf16"):
            check.line(f"{name} {size} {precision}", lambda r=recipe, p=precision: time_vit(check, r, p))
    sys.exit(0 if all(line.get("ok", True) for line in check.lines) else 1)


if __name__ == "__main__":
    main()
