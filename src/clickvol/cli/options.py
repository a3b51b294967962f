"""Options that several commands have, with one wording."""

from pathlib import Path
from typing import Annotated, Literal

import typer

SeriesName = Annotated[str | None, typer.Option(help="Which DICOM series of a folder with several.")]
VolumeNumber = Annotated[
    int | None, typer.Option("--volume", metavar="N", help="Which volume of a 4D file or DICOM series, from 0.")
]
ModalityName = Annotated[
    Literal["CT", "MR", "PT", "other"] | None,
    typer.Option(
        help="What the scan is; recognised when not given. Other scans are seen on a scale of their own values."
    ),
]
ModalityOfAll = Annotated[
    Literal["CT", "MR", "PT", "other"] | None, typer.Option(help="Of all scans; else by the data.")
]
ModelName = Annotated[
    str | None, typer.Option(metavar="ID|PATH", help="Which model; see `clickvol models list`.")
]
ProposerName = Annotated[
    str | None,
    typer.Option("--propose", metavar="ID|PATH", help="An automatic model, which proposes a first mask."),
]
DeviceName = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")]
PreviewPath = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png",
        help="Also draw the outline of the mask: in three planes through the click, or on the image.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors (and the JSON).")]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", min=1, help="Processes on this machine; each loads its model.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS|FILE",
        help="Use the workers of this Dask scheduler instead; it must be one that you trust.",
    ),
]
