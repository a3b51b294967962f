"""Train a shipped model further, for some minutes, on a machine with torch, scipy, safetensors and pydantic.

    python benchmarks/train_on_gpu.py --pack runs/pack.zip --held-out runs/heldout.zip --minutes 8 -o OUT

A step is captured as a CUDA graph, one for each number of corrections: launched one by one, its kernels wait
for the host. Begins with the shipped weights of `--start`; channels for prompts that they do not know begin
with zeros. More than half of what is drawn is real sarcoma. Every minute the averaged weights and the log are
written, each file whole or not at all, to two files in turn, so the run may be cut off at any second; after
a minute and at the end the log has figures on held-out patients. The learning rate falls with the time left.
`--probe` measures steps with and without graphs, at several batch sizes, and stops.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

import clickvol
from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import read_pack
from clickvol.datasets.samples import PatchBatch, PatchPrompts
from clickvol.datasets.sampling import PatchSampling
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.recipe import BoundaryTerm, LossRecipe
from clickvol.prompts.spatial import NUM_HINTS
from clickvol.training.tasks.patch_step import PatchStep

SHIPPED = Path(clickvol.__file__).parent / "weights" / "shipped"
SHARES = {
    "Sarcoma_CT": 0.28,
    "Sarcoma_MR": 0.24,
    "Sarcoma_PET": 0.06,
    "LungNodule_CT": 0.20,
    "HeadNeckOrgans_CT": 0.18,
    "MSLesion_MR": 0.04,
}
NUM_CANDIDATES = 3
SAMPLING = PatchSampling(
    group_shares=SHARES,
    small_object_exponent=0.5,
    first_zoom=(0.8, 1.6),
    first_view_share=0.45,
    finest_voxel_mm=0.5,
    fitted_extents=(0.9, 2.6),
    max_cut_mm=50.0,
    rotation_degrees=20.0,
    elastic_share=0.5,
    lesion_share=0.15,
    lesion_mm=(4.0, 80.0),
    synthesis_share=0.05,
    remap_share=0.15,
    lung_groups=("LungNodule_CT",),
    extra_click_share=0.2,
    prior_share=0.3,
    diameter_share=0.1,
    slice_box_share=0.06,
    box_share=0.06,
    scribble_share=0.06,
)


def build(start: str) -> tuple[LiftedSegmenter, dict]:
    """Return the network with the weights of a shipped model or a file, and its configuration."""
    is_shipped = (SHIPPED / f"{start}.json").is_file()
    card = json.loads((SHIPPED / f"{start if is_shipped else 'promise3d-lesions'}.json").read_text())
    config = TypeAdapter(LiftedSegmenterConfig).validate_python(card["network"])
    prompts = config.decoder.num_prompt_maps + NUM_HINTS - config.num_hints
    config = replace(
        config,
        decoder=replace(config.decoder, num_prompt_maps=prompts),
        num_hints=NUM_HINTS,
        num_candidates=NUM_CANDIDATES,
    )
    network = LiftedSegmenter(config)
    given = load_file(SHIPPED / card["weights_file"] if is_shipped else Path(start))
    state = network.state_dict()
    for name, value in state.items():
        old = given.get(name)
        if old is None:
            continue
        if old.shape == value.shape:
            value.copy_(old)
        else:
            # Further prompt channels are the last ones.
            value.zero_()
            value[:, : old.shape[1]].copy_(old)
    if "candidates.classify.weight" not in given:
        first = given["mask_decoder.classify.weight"].float()
        state["candidates.classify.weight"].copy_((first[1] - first[0]).expand(NUM_CANDIDATES, -1, -1, -1, -1))
    network.load_state_dict(state)
    return network, TypeAdapter(LiftedSegmenterConfig).dump_python(config, mode="json")


def write(path: Path, content: bytes | dict) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name("." + path.name)
    if isinstance(content, dict):
        save_file(content, temporary)
    else:
        temporary.write_bytes(content)
    temporary.replace(path)


def tensors_of(batch: PatchBatch) -> list[torch.Tensor]:
    """Return all of a batch; with hints, as networks with candidates take them."""
    prompts = batch.prompts
    given = [batch.patch, batch.label, prompts.points_dhw, prompts.labels, prompts.prior, batch.noise_seed]
    return [*given, prompts.hints]


class StepGraphs:
    """The steps of a run as CUDA graphs, captured when they are first needed, one per number of corrections.

    Args:
        run: whose `descend` is captured.
        batch: any of the size that all further ones have.
    """

    def __init__(self, run: "Run", batch: PatchBatch) -> None:
        self.run = run
        self.given = [tensor.clone() for tensor in tensors_of(batch)]
        patch, label, points, labels, prior, seeds, hints = self.given
        self.batch = PatchBatch(patch, label, PatchPrompts(points, labels, prior, hints), seeds)
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self.pool = torch.cuda.graph_pool_handle()
        # Libraries choose their kernels in steps that are not captured.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for number in range(3):
                run.descend(self.batch, number)
        torch.cuda.current_stream().wait_stream(stream)

    def descend(self, batch: PatchBatch, number: int) -> torch.Tensor:
        """See `Run.descend`."""
        for mine, new in zip(self.given, tensors_of(batch), strict=True):
            mine.copy_(new)
        kind = self.run.step.num_corrections(number)
        if kind not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            self.run.optimiser.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph, pool=self.pool):
                figures = self.run.descend(self.batch, number)
            self.graphs[kind] = graph, figures
        graph, figures = self.graphs[kind]
        graph.replay()
        return figures

    def are_right(self) -> bool:
        """Capture all graphs; tell whether each gives the loss of a plain step, and learns."""
        run = self.run
        firsts: dict[int, int] = {}
        for number in range(200):
            firsts.setdefault(run.step.num_corrections(number), number)
        good = True
        for kind, number in sorted(firsts.items()):
            run.set_rate(0.0)
            plain = float(run.descend(self.batch, number)[0])
            captured = float(self.descend(self.batch, number)[0])
            before = [p.detach().clone() for p in run.parameters]
            run.set_rate(1e-5)
            self.descend(self.batch, number)
            moved = [(p.detach() - q).abs().mean() for p, q in zip(run.parameters, before, strict=True)]
            mean = float(torch.stack(moved).mean())
            print(
                f"{kind} corrections: loss {plain:.4f}, as a graph {captured:.4f}, step {mean:.1e}", flush=True
            )
            good &= abs(plain - captured) < 0.02 * plain and 1e-7 < mean < 1e-4
            with torch.no_grad():
                torch._foreach_copy_(run.parameters, before)
        return good


class Run:
    """One run: networks, optimiser, average and log."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.is_gpu = self.device.type == "cuda"
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        network, self.config = build(options.start)
        self.network = network.to(self.device)
        self.step = PatchStep(self.network, LossRecipe(boundary=BoundaryTerm()), options.seed)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=torch.tensor(options.rate, device=self.device),
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=self.is_gpu,
            capturable=self.is_gpu,
        )
        self.graphs: StepGraphs | None = None
        started = time.time()
        self.store = ScanStore.of(read_pack(options.pack), self.device)
        self.held_out = ScanStore.of(read_pack(options.held_out), self.device)
        print(f"scans on the device after {time.time() - started:.1f} s", flush=True)
        self.log: list[dict] = []
        self.saves = 0

    def train_step(self, sampler: PatchSampler, number: int, rate: float) -> torch.Tensor:
        """Do one step; return figures on the device."""
        size = self.options.batch
        with torch.no_grad():
            batch = sampler.batch(range(number * size, (number + 1) * size))
        self.set_rate(rate)
        figures = self.descend(batch, number) if self.graphs is None else self.graphs.descend(batch, number)
        decay = min(self.options.decay, (number + 1) / (number + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        return figures

    def set_rate(self, rate: float) -> None:
        """Set the learning rate, which captured steps read, too."""
        for group in self.optimiser.param_groups:
            group["lr"].fill_(rate)

    def descend(self, batch: PatchBatch, number: int) -> torch.Tensor:
        """Change the weights by a batch; return loss, Dice, best Dice and error of the predicted Dice."""
        # The cache of casted weights would outlive a captured graph.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_gpu, cache_enabled=False):
            figures = self.step(batch, number)
        self.optimiser.zero_grad(set_to_none=True)
        figures.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimiser.step()
        return torch.stack(
            [figures.loss.detach(), figures.dice.mean(), figures.best_dice.mean(), figures.judged.mean()]
        )

    @torch.no_grad()
    def evaluate(self) -> dict:
        """Return the mean Dice of the averaged network on held-out patients, by group and kind of prompt."""
        last = [p.detach().clone() for p in self.parameters]
        torch._foreach_copy_(self.parameters, self.average)
        result = {}
        judge = PatchStep(self.network, LossRecipe(boundary=BoundaryTerm()), 0, corrected_share=0.0)
        corrected = PatchStep(self.network, LossRecipe(boundary=BoundaryTerm()), 0, corrected_share=1.1)
        for group in self.held_out.groups:
            kinds = {"click": (judge, 0.0, 0.0), "diameter": (judge, 1.0, 0.0), "box": (judge, 0.0, 1.0)}
            for name, (step, diameter, box) in (kinds | {"corrected": (corrected, 0.0, 0.0)}).items():
                shares = {"diameter_share": diameter, "slice_box_share": 0.0, "box_share": box}
                shares |= {"scribble_share": 0.0, "click_kept_share": 1.0, "group_shares": {group: 1.0}}
                sampling = SAMPLING.without_changes().model_copy(update=shares)
                sampler = PatchSampler(self.held_out, sampling, 64, 5)
                figures = []
                for part in range(self.options.held_out_batches):
                    # The size of the steps, for which libraries have chosen their kernels.
                    size = self.options.batch
                    batch = sampler.batch(range(part * size, part * size + size))
                    with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_gpu):
                        done = step(batch, part)
                    figures.append(torch.stack([done.dice.mean(), done.best_dice.mean(), done.judged.mean()]))
                result[f"{group} {name}"] = [round(x, 4) for x in torch.stack(figures).mean(0).tolist()]
        torch._foreach_copy_(self.parameters, last)
        return result

    def save(self, step: int, seconds: float) -> None:
        """Write the averaged weights in half precision, the log and the configuration."""
        folder = self.options.output
        folder.mkdir(parents=True, exist_ok=True)
        names = [name for name, p in self.network.named_parameters() if p.requires_grad]
        state = dict(self.network.state_dict()) | dict(zip(names, self.average, strict=True))
        self.saves += 1
        write(
            folder / f"model-{self.saves % 2}.safetensors",
            {k: v.to(torch.float16).cpu().contiguous() for k, v in state.items()},
        )
        facts = {
            "steps": step,
            "file": f"model-{self.saves % 2}.safetensors",
            "seconds": seconds,
            "options": {k: str(v) for k, v in vars(self.options).items()},
            "device": torch.cuda.get_device_name() if self.is_gpu else "cpu",
            "network": self.config,
            "log": self.log,
        }
        write(folder / "run.json", json.dumps(facts, indent=1).encode())

    def train(self) -> None:
        """Train until the minutes are over."""
        options = self.options
        sampler = PatchSampler(self.store, SAMPLING, 64, options.seed)
        if self.is_gpu and not options.no_graphs:
            self.start_graphs(sampler)
        total = options.minutes * 60
        started = time.time()
        next_save = next_figures = min(60.0, total / 2)
        number, sums = 0, torch.zeros(4, device=self.device)
        counted = 0
        while True:
            seconds = time.time() - started
            if seconds >= total or number >= options.max_steps:
                break
            part = seconds / total
            rate = options.rate * min(1.0, (number + 1) / options.warmup) * max(0.02, 1 - part) ** 0.9
            sums += self.train_step(sampler, number, rate)
            number += 1
            counted += 1
            if counted == 50:
                loss, dice, best, judged = (round(x, 4) for x in (sums / counted).tolist())
                self.log.append(
                    {
                        "step": number,
                        "seconds": round(seconds, 1),
                        "loss": loss,
                        "dice": dice,
                        "best": best,
                        "judged": judged,
                    }
                )
                print(self.log[-1], flush=True)
                sums.zero_()
                counted = 0
                if not math.isfinite(loss):
                    raise SystemExit("the loss is no number; the weights of the last save stand")
            if seconds > next_save:
                if options.held_out_batches and seconds > next_figures:
                    self.log.append({"step": number, "seconds": round(seconds, 1), "held_out": self.evaluate()})
                    print(self.log[-1], flush=True)
                    next_figures = math.inf
                self.save(number, seconds)
                next_save = seconds + 60
        self.log.append({"step": number, "held_out": self.evaluate() if options.held_out_batches else {}})
        print(self.log[-1], flush=True)
        self.save(number, time.time() - started)

    def probe(self) -> None:
        """Measure the sampler, and steps with and without graphs, at several batch sizes."""
        sampler = PatchSampler(self.store, SAMPLING, 64, self.options.seed)
        numbers = iter(range(10**6))

        def timed(name: str, work: Callable[[int], object], count: int) -> float:
            """Print the time of a call, and how much of it the host is busy."""
            started = time.time()
            for _ in range(3):
                work(next(numbers))
            self.wait()
            warmed = time.time()
            for _ in range(count):
                work(next(numbers))
            launched = time.time()
            self.wait()
            each, host = (time.time() - warmed) / count, (launched - warmed) / count
            size = self.options.batch
            print(
                f"{name}, batch {size}: {1000 * each:.1f} ms, host {1000 * host:.1f} ms, {size / each:.0f} "
                f"samples/s, first calls {warmed - started:.1f} s, {self.peak_gb():.1f} GB",
                flush=True,
            )
            return each

        def sampled(n: int) -> None:
            with torch.no_grad():
                size = self.options.batch
                sampler.batch(range(n * size, n * size + size))

        for size in self.options.probe:
            self.options.batch = size
            timed("sampler", sampled, 10)
            self.graphs = None
            timed("step", lambda n: self.train_step(sampler, n, 1e-6), 20)
            if self.is_gpu:
                if size == self.options.probe[0]:
                    self.profile(sampler)
                self.start_graphs(sampler)
                timed("step as graphs", lambda n: self.train_step(sampler, n, 1e-6), 20)

    def profile(self, sampler: PatchSampler) -> None:
        """Print what the device does in four steps."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for n in range(4):
                self.train_step(sampler, n, 1e-6)
            self.wait()
        rows = sorted(profiler.key_averages(), key=lambda row: -row.self_device_time_total)
        total = sum(row.self_device_time_total for row in rows)
        print(f"device busy {total / 4000:.1f} ms a step, {sum(row.count for row in rows) // 4} launches")
        for row in rows[:35]:
            each = row.self_device_time_total / 4000
            print(f"{each:8.2f} ms {row.count // 4:5d} times  {row.key[:110]}", flush=True)

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def peak_gb(self) -> float:
        """Return the most memory of the device since the last call; 0 on a CPU."""
        if not self.is_gpu:
            return 0.0
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return peak

    def start_graphs(self, sampler: PatchSampler) -> None:
        """Launch steps as graphs from now on, if they do what plain steps do."""
        with torch.no_grad():
            batch = sampler.batch(range(self.options.batch))
        self.set_rate(0.0)
        self.graphs = StepGraphs(self, batch)
        if not self.graphs.are_right():
            print("graphs differ from plain steps: every kernel is launched by itself", flush=True)
            self.graphs = None


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--max-steps", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--decay", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--start", default="promise3d-lesions", help="shipped model or weights file to begin with"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--held-out-batches", type=int, default=1)
    parser.add_argument("--no-graphs", action="store_true", help="launch every kernel by itself")
    parser.add_argument("--probe", type=int, nargs="*", default=[], help="measure at these batch sizes")
    options = parser.parse_args()
    run = Run(options)
    if options.probe:
        run.probe()
    else:
        run.train()


if __name__ == "__main__":
    main()
