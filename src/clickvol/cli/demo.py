"""`clickvol demo`: the main job on a synthetic scan whose truth is known."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clickvol.cli.options import DeviceName, ModelName

if TYPE_CHECKING:
    from clickvol.phantoms.phantom import Phantom

_TUMOUR_DIAMETER_MM = 100.0


def demo(
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the files go; made when missing.")
    ] = Path("demo"),
    modality: Annotated[Literal["CT", "MR"], typer.Option(help="What the synthetic scan looks like.")] = "CT",
    seed: Annotated[int, typer.Option(min=0, help="Which synthetic patient.")] = 8,
    model: ModelName = None,
    device: DeviceName = "auto",
) -> None:
    """Make a synthetic scan with a tumour, click it, and compare with the truth.

    Research use only, not a medical device.
    """
    from clickvol.cli.progress import show_stages, show_warnings
    from clickvol.metrics.overlap import dice
    from clickvol.predict.segmentation_request import SegmentationRequest, run_request
    from clickvol.prompts.click import Click

    scan, truth, preview = out / "scan.nii.gz", out / "truth.nii.gz", out / "preview.png"
    with show_stages(quiet=False) as on_stage:
        on_stage("making a synthetic scan")
        phantom = _write_phantom(scan, truth, seed, modality)
        request = SegmentationRequest(
            scan=scan,
            clicks=(Click(phantom.inside),),
            mask=out / "mask.nii.gz",
            modality=modality,
            model=model,
            device=device,
            preview=preview,
        )
        result = run_request(request, on_stage=on_stage)
    show_warnings(result.warnings)
    mask = result.segmentation.mask
    i, j, k = (round(v) for v in phantom.inside.to_ijk())
    words = [f"clickvol segment {scan} --click {i},{j},{k} -o {request.mask} --modality {modality}"]
    words += [f"--model {model}"] if model else []
    typer.echo(
        f"""\
scan     {scan}  (synthetic {modality}, patient {seed})
truth    {truth}  ({phantom.truth.volume_ml:.1f} ml)
mask     {request.mask}  ({mask.volume_ml:.1f} ml)
preview  {preview}
Dice {dice(mask.array, phantom.truth.array):.3f} from one click at voxel {i},{j},{k}, in \
{result.seconds["total"]:.1f} s

The same by hand:
  {" ".join(words)} --preview {preview}

Research use only, not a medical device. A synthetic scan shows that it works, not how well."""
    )


def _write_phantom(scan: Path, truth: Path, seed: int, modality: Literal["CT", "MR"]) -> "Phantom":
    from clickvol.files.atomic import make_folder
    from clickvol.io.formats import write_mask, write_volume
    from clickvol.phantoms.phantom import make_phantom

    make_folder(scan.parent, "choose another with --out")
    phantom = make_phantom(seed, modality=modality, tumour_diameter_mm=_TUMOUR_DIAMETER_MM)
    write_volume(phantom.volume.array, phantom.volume.grid, scan)
    write_mask(phantom.truth, truth)
    return phantom
