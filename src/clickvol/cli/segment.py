"""`clickvol segment`: a scan and clicks in, a mask out."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

Space = Literal["ijk", "ras", "lps"]
ScanModality = Literal["CT", "MR", "PT"]
Device = Literal["auto", "cpu", "cuda", "mps"]
DicomKind = Literal["seg", "rtstruct"]
Tilt = Literal["keep", "refuse", "resample"]


_ScanPath = Annotated[
    Path,
    typer.Argument(
        metavar="SCAN",
        help="A .nii, .nii.gz, .nrrd or .mha file, or a folder or .zip with one DICOM series.",
    ),
]
_ClickTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--click",
        metavar="I,J,K",
        help=(
            "A click inside the tumour: voxel indices of the file as stored, or millimetres "
            "with --space. A trailing :- marks a click on what does not belong to it "
            "(120,88,41:-). Repeatable. Every model but an automatic one needs one."
        ),
    ),
]
_MaskPath = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="MASK",
        help=(
            "Where the mask goes, on the grid of the scan: .nii.gz, .nii, .nrrd or .mha; for a "
            "DICOM scan also .dcm."
        ),
    ),
]
_SpaceName = Annotated[Space, typer.Option(help="What clicks are: voxel indices, or mm in RAS or LPS.")]
_SeriesName = Annotated[str | None, typer.Option(help="Which DICOM series of a folder with several.")]
_VolumeNumber = Annotated[int | None, typer.Option(metavar="N", help="Which volume of a 4D file, from 0.")]
_ModalityName = Annotated[
    ScanModality | None, typer.Option(help="What the scan is; recognised when not given.")
]
_ModelName = Annotated[
    str | None,
    typer.Option(metavar="ID|PATH", help="Which model; see `clickvol models list`."),
]
_OrganMaskPath = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Mask of the organ, above 0 is organ; for models of the method tags only.",
    ),
]
_DeviceName = Annotated[Device, typer.Option(help="Where to compute.")]
_ProbabilityPath = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write the probabilities, 0 to 1.")
]
_PreviewPath = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Also draw three planes through the click."),
]
_DicomKind = Annotated[
    DicomKind | None,
    typer.Option("--dicom", help="What a .dcm mask is; a segmentation (seg) when not given."),
]
_Deidentify = Annotated[
    bool,
    typer.Option(
        "--deidentify",
        help=(
            "Leave patient, dates and places out of a .dcm mask, and rename the scan it refers "
            "to. Other formats never hold them."
        ),
    ),
]
_GantryTilt = Annotated[
    Tilt,
    typer.Option(help="A DICOM series of a tilted gantry: keep its sheared grid, refuse or resample it."),
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors (and the JSON).")]


def segment(
    *,
    scan: _ScanPath,
    output: _MaskPath,
    click: _ClickTexts = None,
    space: _SpaceName = "ijk",
    series: _SeriesName = None,
    volume: _VolumeNumber = None,
    modality: _ModalityName = None,
    model: _ModelName = None,
    organ_mask: _OrganMaskPath = None,
    device: _DeviceName = "auto",
    probability: _ProbabilityPath = None,
    preview: _PreviewPath = None,
    dicom: _DicomKind = None,
    deidentify: _Deidentify = False,
    gantry_tilt: _GantryTilt = "keep",
    as_json: _AsJson = False,
    quiet: _Quiet = False,
) -> None:
    """Segment what was clicked, and write the mask.

    Research use only, not a medical device. The exit code is 0 only when the mask is written.
    """
    from clickvol.cli.progress import show_stages, show_warnings
    from clickvol.cli.result import result_as_dict, result_as_text
    from clickvol.predict.scan_job import ScanJob, run_scan_job
    from clickvol.prompts.click_text import parse_clicks

    job = ScanJob(
        scan=scan,
        clicks=parse_clicks(click or [], space=space),
        mask=output,
        series=series,
        volume_index=volume,
        modality=modality,
        model=model,
        device=device,
        organ_mask=organ_mask,
        probability=probability,
        preview=preview,
        dicom=dicom,
        deidentify=deidentify,
        gantry_tilt=gantry_tilt,
    )
    with show_stages(quiet=quiet) as on_stage:
        result = run_scan_job(job, on_stage=on_stage)
    if not quiet:
        show_warnings(result.warnings)
    if as_json:
        typer.echo(json.dumps(result_as_dict(result), indent=2))
    elif not quiet:
        typer.echo(result_as_text(result))
