"""`clickvol segment-image`: a picture or a slice of a scan in, a mask out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clickvol.cli.options import AsJson, DeviceName, ModalityName, PreviewPath, Quiet, SeriesName, VolumeNumber

_ImagePath = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A PNG, JPEG or TIFF picture; or, with --slice, a scan (file or DICOM folder)."
    ),
]
_Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="MASK",
        help=(
            "Where the mask goes: a .png of the image's size with 0 and 255; for a scan also "
            ".nii.gz, .nii, .nrrd or .mha on its grid, with only that slice filled."
        ),
    ),
]
_ClickTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--click",
        metavar="COL,ROW",
        help=(
            "A pixel of the object, counted from 0 at the top left. A trailing :- marks one that "
            "does not belong to it (120,88:-). Repeatable."
        ),
    ),
]
_BoxText = Annotated[
    str | None,
    typer.Option(
        "--box",
        metavar="X0,Y0,X1,Y1",
        help="A box around the object: its first column and row, its last column and row.",
    ),
]
_PointsName = Annotated[
    Literal["user", "auto", "gt"],
    typer.Option(
        help=(
            "Who points: you, the model (ProMISe-2D with auto-prompting), or the known truth (for "
            "evaluation only)."
        )
    ),
]
_TruthPath = Annotated[
    Path | None, typer.Option(metavar="MASK", help="The known mask: to compare with, and for --points gt.")
]
_NumPoints = Annotated[int, typer.Option(metavar="N", min=1, help="How many points are drawn from the truth.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of drawing points from the truth.")]
_SliceIndex = Annotated[
    int | None, typer.Option("--slice", metavar="K", help="Which slice of a scan: its voxel index, from 0.")
]
_AxisName = Annotated[
    Literal["axial", "coronal", "sagittal", "i", "j", "k"],
    typer.Option(
        help=(
            "Slices across the patient, hung as radiologists do; or across an axis of the file, as "
            "stored (k: a pixel is the voxel's I,J)."
        )
    ),
]
_ModelName = Annotated[str, typer.Option(metavar="ID|PATH", help="A SAM or ProMISe-2D model; see models list.")]


def segment_image(
    *,
    image: _ImagePath,
    output: _Output,
    click: _ClickTexts = None,
    box: _BoxText = None,
    points: _PointsName = "user",
    truth: _TruthPath = None,
    num_points: _NumPoints = 16,
    seed: _Seed = 0,
    slice_index: _SliceIndex = None,
    axis: _AxisName = "axial",
    modality: ModalityName = None,
    series: SeriesName = None,
    volume: VolumeNumber = None,
    model: _ModelName = "litemedsam",
    device: DeviceName = "auto",
    preview: PreviewPath = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Segment one 2D image (PNG, JPEG, TIFF, or a slice of a scan) with SAM or ProMISe-2D.

    Research use only, not a medical device. The exit code is 0 only when the mask is written.
    """
    from clickvol.cli.progress import show_stages
    from clickvol.cli.result import print_result
    from clickvol.predict.segmentation_request import ImageRequest, run_image_request
    from clickvol.prompts.click_text import parse_image_prompts

    request = ImageRequest(
        image=image,
        mask=output,
        prompts=parse_image_prompts(click or [], box),
        points=points,
        truth=truth,
        num_points=num_points,
        seed=seed,
        model=model,
        device=device,
        slice_index=slice_index,
        axis=axis,
        modality=modality,
        series=series,
        volume_index=volume,
        preview=preview,
    )
    with show_stages(quiet=quiet) as on_stage:
        result = run_image_request(request, on_stage=on_stage)
    print_result(result, as_json=as_json, quiet=quiet)
