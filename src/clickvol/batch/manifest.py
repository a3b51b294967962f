"""The list of a batch: a CSV file with one scan, its clicks and its mask per row."""

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clickvol.errors import ClickvolError, ConfigError
from clickvol.io.volume import SaidModality
from clickvol.predict.segmentation_request import SegmentationRequest
from clickvol.prompts.click import Space
from clickvol.prompts.click_text import parse_box, parse_clicks, parse_line
from clickvol.weights.card import DEFAULT_MODEL_ID, read_card

REQUIRED_COLUMNS = ("scan", "click", "output")
OPTIONAL_COLUMNS = ("line", "box", "space", "series", "volume", "modality", "model")

_CLICK_SEPARATOR = ";"
_TOO_MANY = "too many"
_MAX_CELL_CHARACTERS = 1 << 20


class _Cells(BaseModel):
    """The cells of a row that are not empty; see docs/how-to/batch.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    scan: str = Field(min_length=1)
    output: str = Field(min_length=1)
    click: str = ""
    line: str = ""
    box: str = ""
    space: Space = "ijk"
    series: str | None = None
    volume: int | None = Field(default=None, ge=0)
    modality: SaidModality | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One row of a manifest, from 1: a job, or one line on why it cannot be used.

    The key changes when the job or the weights of its model do; it is empty where the row cannot be used.
    """

    number: int
    scan: str
    output: str
    job: SegmentationRequest | None = None
    problem: str | None = None
    key: str = ""


def read_manifest(
    path: Path, folder: Path, *, model: str | None = None, device: str = "auto"
) -> tuple[BatchRow, ...]:
    """Read a manifest. A row that cannot be used says why, and the others are as they would be without it.

    Args:
        path: a CSV file in UTF-8 with a header; scans are relative to its folder.
        folder: what outputs are relative to.
        model: id or path for rows that name none; None for the default model.
        device: of every job.

    Raises:
        ConfigError: when the file cannot be read, its header lacks a column or has one that is not known, or
            there is no row.
    """
    read_card_once = cache(read_card)
    if model is not None and Path(model).exists():
        model = str(Path(model).absolute())  # a worker may run in another folder
    rows = []
    for number, cells in enumerate(_table(path), start=1):
        scan, output = cells.get("scan", ""), cells.get("output", "")
        try:
            job = _job(cells, path.absolute().parent, folder.absolute(), model, device)
            key = _key(job, read_card_once(job.model or DEFAULT_MODEL_ID).sha256)
            row = BatchRow(number=number, scan=scan, output=output, job=job, key=key)
        except (ClickvolError, OSError, ValueError) as error:
            row = BatchRow(number=number, scan=scan, output=output, problem=str(error))
        rows.append(row)
    if not rows:
        raise ConfigError(f"{path} has a header and no rows; give one row per object")
    return tuple(_with_collisions(rows))


def _table(path: Path) -> Iterator[dict[str, str]]:
    """Yield the cells of each row that is not blank, by column."""
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        # A spreadsheet may put a byte order mark in front.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey=_TOO_MANY, restval="", strict=True)
            _check_header(path, [name.strip() for name in reader.fieldnames or ()])
            for cells in reader:
                yield {name.strip(): value for name, value in cells.items()}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not a CSV file in UTF-8 ({error}); export it as one, with commas"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the manifest {path}: {error.strerror}; give a CSV file") from error


def _check_header(path: Path, names: list[str]) -> None:
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    unknown = [name for name in names if name not in known or names.count(name) > 1]
    if missing or unknown:
        problem = (
            f"lacks the column {missing[0]!r}"
            if missing
            else f"has the column {unknown[0]!r}, which is not known or there twice"
        )
        raise ConfigError(
            f"the header of {path} {problem}; the columns are {', '.join(REQUIRED_COLUMNS)} and, where needed, "
            f"{', '.join(OPTIONAL_COLUMNS)}, separated by commas"
        )


def _job(
    cells: dict[str, str], scans: Path, outputs: Path, model: str | None, device: str
) -> SegmentationRequest:
    if _TOO_MANY in cells:
        raise ConfigError('the row has more cells than the header; put clicks in quotes, such as "120,88,41"')
    try:
        row = _Cells.model_validate({name: text for name, text in cells.items() if text.strip()})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"the cell {first['loc'][0]!r} cannot be used: {first['msg']}; correct the row"
        ) from error
    clicks, lines, boxes = (
        [text for text in cell.split(_CLICK_SEPARATOR) if text.strip()]
        for cell in (row.click, row.line, row.box)
    )
    chosen = model if row.model is None else row.model
    # A model given by its path is named like a scan: from the folder of the manifest.
    if row.model is not None and (scans / row.model).exists():
        chosen = str(scans / row.model)
    return SegmentationRequest(
        scan=scans / row.scan,
        clicks=parse_clicks(clicks, space=row.space),
        lines_and_boxes=(
            *(parse_line(text, space=row.space) for text in lines),
            *(parse_box(text, space=row.space) for text in boxes),
        ),
        mask=outputs / row.output,
        series=row.series,
        volume_index=row.volume,
        modality=row.modality,
        model=chosen,
        device=device,
    )


def _key(job: SegmentationRequest, model_sha256: str) -> str:
    content: dict[str, object] = {
        "scan": str(job.scan),
        "mask": str(job.mask),
        "clicks": [[type(c.position).__name__, asdict(c.position), c.foreground] for c in job.clicks],
        "series": job.series,
        "volume": job.volume_index,
        "modality": job.modality,
        "model_sha256": model_sha256,
    }
    if job.lines_and_boxes:
        regions = [[type(p).__name__, type(p.first).__name__, asdict(p)] for p in job.lines_and_boxes]
        content["lines_and_boxes"] = regions
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _with_collisions(rows: list[BatchRow]) -> Iterator[BatchRow]:
    """Refuse a row that would write where another one writes or reads."""
    scans = {os.path.realpath(row.job.scan): row.number for row in reversed(rows) if row.job}
    outputs: dict[str, int] = {}
    for row in rows:
        if row.job is None:
            yield row
            continue
        place = os.path.realpath(row.job.mask)
        problem = None
        if place in scans:
            problem = f"{row.output} is the scan of row {scans[place]}; give another output"
        elif place in outputs:
            problem = f"{row.output} is the output of row {outputs[place]} too; give each its own"
        outputs.setdefault(place, row.number)
        if problem is None:
            yield row
        else:
            yield BatchRow(number=row.number, scan=row.scan, output=row.output, problem=problem)
