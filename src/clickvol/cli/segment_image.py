"""`clickvol segment-image`: a picture or a slice of a scan in, a mask out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clickvol.errors import ClickError

if TYPE_CHECKING:
    from clickvol.predict.image_job import ImageJobResult
    from clickvol.prompts.image_prompts import ImageClick

_SIGNS = {":+": True, ":-": False}

_ImagePath = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A PNG or JPEG picture; or, with --slice, a scan (file or DICOM folder).",
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
    Path | None,
    typer.Option(metavar="MASK", help="The known mask: to compare with, and for --points gt."),
]
_NumPoints = Annotated[int, typer.Option(metavar="N", min=1, help="How many points are drawn from the truth.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of drawing points from the truth.")]
_SliceIndex = Annotated[
    int | None,
    typer.Option("--slice", metavar="K", help="Which slice of a scan: its voxel index, from 0."),
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
_PreviewPath = Annotated[
    Path | None, typer.Option(metavar="FILE.png", help="Also draw the outline on the image.")
]

_ModalityName = Annotated[
    Literal["CT", "MR", "PT"] | None,
    typer.Option(help="What the scan is; recognised when not given."),
]
_SeriesName = Annotated[str | None, typer.Option(help="Which DICOM series of a folder with several.")]
_VolumeNumber = Annotated[int | None, typer.Option(metavar="N", help="Which volume of a 4D file, from 0.")]
_DeviceName = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


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
    modality: _ModalityName = None,
    series: _SeriesName = None,
    volume: _VolumeNumber = None,
    model: _ModelName = "litemedsam",
    device: _DeviceName = "auto",
    preview: _PreviewPath = None,
    as_json: _AsJson = False,
) -> None:
    """Segment one 2D image (PNG, JPEG, or a slice of a scan) with SAM or ProMISe-2D.

    Research use only, not a medical device. The exit code is 0 only when the mask is written.
    """
    # First what needs no network, so that a slip of the pen is answered at once.
    clicks = [_parse_click(text) for text in click or []]
    corners = None if box is None else _parse_box(box)

    from clickvol.cli.progress import show_stages, show_warnings
    from clickvol.predict.image_job import ImageJob, run_image_job
    from clickvol.prompts.image_prompts import ImageClick, ImagePrompts

    job = ImageJob(
        image=image,
        output=output,
        prompts=ImagePrompts(tuple(ImageClick(*parsed) for parsed in clicks), corners),
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
    with show_stages(quiet=False) as on_stage:
        result = run_image_job(job, on_stage=on_stage)
    show_warnings(result.warnings)
    if as_json:
        typer.echo(json.dumps(_as_dict(result), indent=2))
    else:
        typer.echo(_as_text(result))


def _numbers(text: str, count: int, example: str) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    # Not a number is no place, and neither is infinity.
    if len(numbers) != count or not all(abs(number) < float("inf") for number in numbers):
        raise ClickError(
            f"cannot read {text!r}; give {count} finite numbers with commas and no spaces, such as {example}"
        )
    return numbers


def _parse_click(text: str) -> tuple[float, float, bool]:
    sign = text.strip()[-2:]
    places = text.strip()[:-2] if sign in _SIGNS else text
    column, row = _numbers(places, 2, "120,88 (or 120,88:- for what does not belong to it)")
    return column, row, _SIGNS.get(sign, True)


def _parse_box(text: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _numbers(text, 4, "100,70,140,110")
    return x0, y0, x1, y1


def _as_dict(result: "ImageJobResult") -> dict[str, Any]:
    job, found, cut = result.job, result.segmentation, result.slice_of_scan
    rows, columns = found.mask.nonzero()
    bounds = [columns.min(), rows.min(), columns.max(), rows.max()] if rows.size else None

    def point(click: "ImageClick") -> dict[str, Any]:
        place: dict[str, Any] = {"column_row": [round(click.column, 3), round(click.row, 3)]}
        if cut is not None:
            place["ijk"] = [round(v, 3) for v in cut.view.voxel_ijk(click.column, click.row)]
        return {**place, "foreground": click.foreground}

    return {
        "mask": str(job.output),
        "preview": str(job.preview) if job.preview else None,
        "image": str(job.image),
        "image_rows_columns": list(found.mask.shape),
        "slice": None if cut is None else {"axis": job.axis, "index": cut.view.index, "modality": cut.modality},
        "model": result.model_id,
        "points_from": job.points,
        "points": [point(click) for click in found.prompts.clicks],
        "box_first_and_last_column_row": found.prompts.box_xyxy_pixel,
        "pixels": int(found.mask.sum()),
        "bounds_first_and_last_column_row": bounds and [int(v) for v in bounds],
        "predicted_iou": round(found.iou, 4),
        "truth_dice": None if result.truth_dice is None else round(result.truth_dice, 4),
        "warnings": list(result.warnings),
        "seconds": round(result.seconds, 3),
    }


def _as_text(result: "ImageJobResult") -> str:
    mask = result.segmentation.mask
    lines = [
        f"{result.job.output}: {int(mask.sum())} of {mask.size} pixels ({result.model_id}, "
        f"{result.seconds:.1f} s)"
    ]
    if result.truth_dice is not None:
        lines.append(f"Dice against the truth {result.truth_dice:.3f}")
    if result.job.preview is not None:
        lines.append(f"{result.job.preview}: preview")
    return "\n".join(lines)
