"""`clickvol demo`: the main job on a synthetic scan whose truth is known."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def demo(
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the files go; made when missing.")
    ] = Path("demo"),
    modality: Annotated[Literal["CT", "MR"], typer.Option(help="What the synthetic scan looks like.")] = "CT",
    seed: Annotated[int, typer.Option(min=0, help="Which synthetic patient.")] = 8,
    model: Annotated[
        str | None,
        typer.Option(metavar="ID|PATH", help="Which model; see `clickvol models list`."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")] = "auto",
) -> None:
    """Make a synthetic scan with a tumour, click it, and compare with the truth.

    Research use only, not a medical device.
    """
    from clickvol.cli.progress import show_stages, show_warnings
    from clickvol.predict.demo import run_demo

    with show_stages(quiet=False) as on_stage:
        result = run_demo(out, modality=modality, seed=seed, model=model, device=device, on_stage=on_stage)
    show_warnings(result.job_result.warnings)
    job, mask = result.job_result.job, result.job_result.segmentation.mask
    i, j, k = (round(v) for v in result.click_ijk)
    words = [f"clickvol segment {job.scan} --click {i},{j},{k} -o {job.mask}"]
    words += [f"--modality {modality}"] if job.modality else []
    words += [f"--model {model}"] if model else []
    typer.echo(
        "\n".join(
            (
                f"scan     {job.scan}  (synthetic {modality}, patient {seed})",
                f"truth    {result.truth}  ({result.truth_ml:.1f} ml)",
                f"mask     {job.mask}  ({mask.volume_ml:.1f} ml)",
                f"preview  {job.preview}",
                f"Dice {result.dice:.3f} from one click at voxel {i},{j},{k}, in "
                f"{result.job_result.seconds['total']:.1f} s",
                "",
                "The same by hand:",
                f"  {' '.join(words)} --preview {job.preview}",
                "",
                "Research use only, not a medical device. A synthetic scan shows that it works, not how well.",
            )
        )
    )
