"""Train a shipped model further, for some minutes, on a machine with torch, scipy, safetensors and pydantic.

    python benchmarks/train_on_gpu.py --pack runs/pack.zip --held-out runs/heldout.zip --minutes 8 -o OUT

The loop is that of `clickvol train`: on a GPU steps are launched as CUDA graphs, and the rate falls with
the time left. Begins with the shipped weights of `--start`; channels for prompts that they do not know
begin with zeros. More than half of what is drawn is real sarcoma. Every minute the averaged weights and the
log are written, each file whole or not at all, to two files in turn, so the run may be cut off at any
second; after a minute and at the end the log has figures on held-out patients. `gpu_check.py --batches`
times such steps.
"""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

import clickvol
from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import read_pack
from clickvol.datasets.samples import PatchBatch
from clickvol.datasets.sampling import PatchSampling
from clickvol.errors import TrainingError
from clickvol.files.atomic import write_text
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.prompts.spatial import NUM_HINTS
from clickvol.training.checkpoints import Checkpoints
from clickvol.training.config import TrainConfig
from clickvol.training.loop import Harness, fit
from clickvol.training.processes import Processes
from clickvol.training.schedule import Schedule
from clickvol.training.state import TrainState
from clickvol.training.tasks.step import TrainingStep
from clickvol.weights.safe_file import write_weights

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
    max_corrected_clicks=4,
)
RECIPE = promise3d_recipe("clickvol", "small")


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


def config_of(options: argparse.Namespace) -> TrainConfig:
    """Return the run as `clickvol train` would be told of it."""
    on_gpu = options.device.startswith("cuda")
    optimiser = {
        "steps": options.max_steps,
        "batch_size": options.batch,
        "learning_rate": options.rate,
        "schedule": "polynomial",
        "warmup_steps": options.warmup,
        "final_rate": 0.02,
        "average_decay": options.decay,
    }
    run = {
        "folder": options.output,
        "seed": options.seed,
        "checkpoint_every": options.max_steps,
        "minutes": options.minutes,
        "precision": "bfloat16" if on_gpu else "float32",
        "cuda_graphs": not options.no_graphs,
    }
    model = {"id": "model", "title": "trained on a GPU"}
    return TrainConfig(model=model, sampling=SAMPLING, optimiser=optimiser, run=run)


class Record:
    """Log and checkpoints of a run, and its figures on held-out patients.

    Args:
        options: of the command line.
        network: that is trained.
        content: its configuration.
    """

    def __init__(self, options: argparse.Namespace, network: LiftedSegmenter, content: dict) -> None:
        self.options, self.network = options, network
        self.held_out = ScanStore.of(read_pack(options.held_out), torch.device(options.device))
        self.facts = {"options": {k: str(v) for k, v in vars(options).items()}, "network": content}
        self.log: list[dict] = []
        self.saves = 0

    def write(self, figures: dict) -> None:
        """Keep figures and print them."""
        self.log.append({k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()})
        print(self.log[-1], flush=True)

    def save(self, state: TrainState) -> None:
        """Write the averaged weights in half precision, the log and the configuration."""
        options = self.options
        is_last = state.seconds >= 60 * options.minutes or state.step == options.max_steps
        if is_last or not self.saves:
            with state.averaged():
                figures = self.evaluate()
            self.write({"step": state.step, "seconds": state.seconds, "held_out": figures})
        self.saves += 1
        path = options.output / f"model-{self.saves % 2}.safetensors"
        write_weights(state.weights_to_keep(), path, dtype=torch.float16)
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        facts = {"steps": state.step, "file": path.name, "seconds": state.seconds, "device": device}
        write_text(options.output / "run.json", json.dumps(facts | self.facts | {"log": self.log}, indent=1))

    def save_batches(self, *given: object) -> Path:
        """See `Checkpoints.save_batches`."""
        return Checkpoints(self.options.output, "").save_batches(*given)

    @torch.no_grad()
    def evaluate(self) -> dict:
        """Return the mean Dice of the network, of its best mask, and the error of the Dice that it predicts.

        By group and kind of prompt.
        """
        size, device = self.options.batch, torch.device(self.options.device)
        kinds = {"click": {}, "diameter": {"diameter_share": 1.0}, "box": {"box_share": 1.0}, "corrected": {}}
        plain = {"diameter_share": 0.0, "slice_box_share": 0.0, "box_share": 0.0, "scribble_share": 0.0}
        result = {}
        for group in self.held_out.groups if self.options.held_out_batches else ():
            for name, shares in kinds.items():
                changes = plain | shares | {"click_kept_share": 1.0, "group_shares": {group: 1.0}}
                changes |= {"corrected_click_share": float(name == "corrected")}
                sampling = SAMPLING.without_changes().model_copy(update=changes)
                step = TrainingStep(self.network, RECIPE, sampling, 0)
                sampler = PatchSampler(self.held_out, sampling, 64, 5)
                figures = []
                for part in range(self.options.held_out_batches):
                    # The size of the steps, for which libraries have chosen their kernels.
                    batch = sampler.batch(range(part * size, part * size + size))
                    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                        figures.append(step(batch, part)[1])
                result[f"{group} {name}"] = [round(x, 4) for x in torch.stack(figures).mean(0).tolist()]
        return result


def train(options: argparse.Namespace) -> None:
    """Train until the minutes are over."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device, size, config = torch.device(options.device), options.batch, config_of(options)
    options.output.mkdir(parents=True, exist_ok=True)
    network, content = build(options.start)
    network.to(device)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        trained.values(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    average = {name: p.detach().clone() for name, p in trained.items()}
    state = TrainState(step=0, network=network, optimiser=optimiser, average=average)
    sampler = PatchSampler(ScanStore.of(read_pack(options.pack), device), SAMPLING, 64, options.seed)
    record = Record(options, network, content)
    print("scans are on the device", flush=True)

    def batch(number: int) -> PatchBatch:
        return sampler.batch(range(number * size, (number + 1) * size))

    harness = Harness(
        processes=Processes(0, 1, device),
        schedule=Schedule.of(config.optimiser, 1, 1, options.minutes),
        last_step=options.max_steps,
        checkpoints=record,
        log=record,
        validator=None,
        report=lambda _: None,
        remake=lambda number: [batch(number)],
    )
    step = TrainingStep(network, RECIPE, SAMPLING, options.seed)
    try:
        fit(state, step, map(batch, range(options.max_steps)), config, harness)
    except TrainingError as error:
        raise SystemExit(f"{error}; the weights of the last save stand") from error


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
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(options)


if __name__ == "__main__":
    main()
