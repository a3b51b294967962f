"""`clickvol segment`: a scan and clicks in, a mask out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clickvol.cli.options import (
    AsJson,
    DeviceName,
    ModalityName,
    ModelName,
    PreviewPath,
    Quiet,
    SeriesName,
    VolumeNumber,
)

_ScanPath = Annotated[
    str,
    typer.Argument(
        metavar="SCAN",
        help=(
            "A .nii, .nii.gz, .nrrd or .mha file, a folder or .zip with one DICOM series, or an archive: "
            "dicomweb://HOST[:PORT]/PATH with TLS, dicomweb+http:// without; then name the --series."
        ),
    ),
]
_StudyName = Annotated[
    str | None,
    typer.Option(metavar="UID", help="Which study of an archive; else it is searched for the series."),
]
_Store = Annotated[
    bool, typer.Option("--store", help="Store the mask (a .dcm) in the archive that the scan comes from.")
]
_SendTo = Annotated[
    str | None, typer.Option(metavar="AET@HOST:PORT", help="Send the mask (a .dcm) to an archive by C-STORE.")
]
_ClickTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--click",
        metavar="I,J,K",
        help=(
            "A click inside the tumour: voxel indices of the file as stored, or millimetres "
            "with --space. A trailing :- marks a click on what does not belong to it "
            "(120,88,41:-). Repeatable. Every model but an automatic one needs one, or another prompt."
        ),
    ),
]
_LineTexts = Annotated[
    list[str] | None,
    typer.Option("--line", metavar="A:B", help="The longest diameter by its two ends, 120,88,41:140,90,41."),
]
_BoxTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--box",
        metavar="A:B",
        help="A box by two corners, on one slice or in space; :- behind it for what does not belong.",
    ),
]
_ScribbleTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--scribble",
        metavar="FILE",
        help="Strokes inside the object (FILE:- outside): JSON points, a Slicer markup, or a label image.",
    ),
]
_LassoTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--lasso",
        metavar="FILE",
        help="A closed curve on a slice around the object (FILE:- around what is not), as for --scribble.",
    ),
]
_GivenMask = Annotated[
    str | None,
    typer.Option("--mask", metavar="FILE", help="A mask to begin with, which the other prompts correct."),
]
_MaskPath = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="MASK",
        help=(
            "Where the mask goes, on the grid of the scan: .nii.gz, .nii, .nii.zst, .nrrd, .nhdr, .mha, .mhd "
            "or .mgz; for a DICOM scan also .dcm. Needed unless it is stored or sent. The exit code is 0 "
            "only when all of this is done."
        ),
    ),
]
_SpaceName = Annotated[
    Literal["ijk", "ras", "lps"], typer.Option(help="What all places are: voxel indices, or mm in RAS or LPS.")
]
_OrganMaskPath = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Mask of the organ, above 0 is organ; for models of the method tags only."
    ),
]
_ProbabilityPath = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write the probabilities, 0 to 1; for a DICOM scan also as .dcm, a parametric map.",
    ),
]
_CompressionLevel = Annotated[
    int | None,
    typer.Option(
        "--compression",
        metavar="0-9",
        min=0,
        max=9,
        help="How small the files are made: 0 not at all, 9 slow and small; 1 when not given.",
    ),
]
_DicomKind = Annotated[
    Literal["seg", "rtstruct"] | None,
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
    Literal["keep", "refuse", "resample"],
    typer.Option(help="A DICOM series of a tilted gantry: keep its sheared grid, refuse or resample it."),
]
_Candidates = Annotated[
    bool,
    typer.Option(
        "--candidates", help="Also write the other masks that the model offers, as MASK-1, MASK-2, ..."
    ),
]
_Procedure = Annotated[
    Literal["clickvol", "published"],
    typer.Option(
        help="Views of several sizes with refinement, or the one window of the papers' released test code."
    ),
]
_ResampleGaps = Annotated[
    bool,
    typer.Option(
        "--resample-gaps", help="Bring a DICOM series whose slices change their distance to one spacing."
    ),
]


def segment(
    *,
    scan: _ScanPath,
    output: _MaskPath = None,
    click: _ClickTexts = None,
    line: _LineTexts = None,
    box: _BoxTexts = None,
    scribble: _ScribbleTexts = None,
    lasso: _LassoTexts = None,
    mask: _GivenMask = None,
    space: _SpaceName = "ijk",
    series: SeriesName = None,
    study: _StudyName = None,
    volume: VolumeNumber = None,
    modality: ModalityName = None,
    model: ModelName = None,
    organ_mask: _OrganMaskPath = None,
    device: DeviceName = "auto",
    probability: _ProbabilityPath = None,
    preview: PreviewPath = None,
    dicom: _DicomKind = None,
    deidentify: _Deidentify = False,
    gantry_tilt: _GantryTilt = "keep",
    procedure: _Procedure = "clickvol",
    resample_gaps: _ResampleGaps = False,
    candidates: _Candidates = False,
    store: _Store = False,
    send: _SendTo = None,
    compression: _CompressionLevel = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Segment what was clicked or marked, and write the mask. Research use only, not a medical device."""
    from clickvol.cli.archives import ends_of
    from clickvol.predict.segmentation_request import SegmentationRequest
    from clickvol.prompts.click_text import parse_clicks, parse_drawings, parse_lines_and_boxes

    with ends_of(scan, output, series=series, study=study, store=store, send_to=send) as ends:
        request = SegmentationRequest(
            **ends.places,
            clicks=parse_clicks(click or [], space=space),
            lines_and_boxes=parse_lines_and_boxes(line or [], box or [], space=space),
            drawings=parse_drawings(scribble or [], lasso or [], mask, space=space),
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
            procedure=procedure,
            candidates=candidates,
            resample_gaps=resample_gaps,
            compression_level=compression,
        )
        ends.run(request, as_json=as_json, quiet=quiet)
