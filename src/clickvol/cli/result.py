"""The result of `clickvol segment` and `clickvol segment-image`, as JSON and as lines of text."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import typer

from clickvol.cli.progress import show_warnings
from clickvol.predict.segmentation_request import ImageResult, SegmentationResult
from clickvol.prompts.image_prompts import ImageClick
from clickvol.version import __version__


def print_result(
    result: SegmentationResult | ImageResult,
    *,
    as_json: bool,
    quiet: bool,
    scan: str | None = None,
    places: Sequence[str] = (),
    has_file: bool = True,
) -> None:
    """Print warnings on stderr, and the result on stdout.

    `scan` is the archive that the scan was fetched from, `places` are those that the mask was stored in.
    """
    if isinstance(result, SegmentationResult):
        facts, summary = _scan_facts(result), _scan_summary(result)
        facts |= {"stored": list(places)} if places else {}
        facts |= {} if has_file else {"mask": None}
        facts |= {} if scan is None else {"scan": scan}
        if not has_file:
            summary[0] = summary[0].replace(f"{result.request.mask}: ", "mask: ", 1)
        summary += [f"{place}: stored" for place in places]
    else:
        facts, summary = _image_facts(result), _image_summary(result)
    if not quiet:
        show_warnings(result.warnings)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    elif not quiet:
        typer.echo("\n".join(summary))


def _scan_facts(result: SegmentationResult) -> dict[str, Any]:
    request, segmentation = result.request, result.segmentation
    box, next_click = segmentation.bounding_box(), segmentation.next_click()
    bounds_ijk = bounds_mm = None
    if box is not None:
        bounds_ijk = [list(box.start_dhw[::-1]), [stop - 1 for stop in box.stop_dhw[::-1]]]
        # Of the outer faces of the voxels, not of their centres.
        bounds_mm = [_plain(corner.as_array()) for corner in result.volume.grid.bounds_of(box)]
    return {
        "mask": str(request.mask),
        "probability": str(request.probability) if request.probability else None,
        "preview": str(request.preview) if request.preview else None,
        "scan": str(request.scan),
        "modality": segmentation.modality,
        "model": segmentation.model_id,
        "procedure": segmentation.procedure,
        "volume_ml": round(segmentation.mask.volume_ml, 4),
        "voxels": segmentation.mask.num_voxels,
        "bounding_box_ijk_first_and_last_inclusive": bounds_ijk,
        "bounding_box_ras_mm_lowest_and_highest": bounds_mm,
        "expected_dice": _plain(segmentation.expected_dice),
        "expected_dice_interval": _plain(segmentation.expected and segmentation.expected.interval),
        "comparable_patients": segmentation.expected and segmentation.expected.patients,
        "candidates": [
            {
                "mask": str(request.candidate_path(number) if number else request.mask)
                if request.candidates
                else None,
                "volume_ml": round(candidate.mask.volume_ml, 4),
                "predicted_dice": _plain(candidate.predicted_dice),
            }
            for number, candidate in enumerate(segmentation.candidates)
        ],
        "next_click_ijk": None if next_click is None else [int(v) for v in next_click.to_ijk()],
        "prompts_used": [_plain(asdict(use)) for use in segmentation.prompts_used],
        "fields_of_view": [_plain(asdict(view)) for view in segmentation.fields_of_view],
        "warnings": list(result.warnings),
        "seconds": _plain(result.seconds),
        "seconds_of_first_click": _plain(segmentation.seconds),
        "versions": {"clickvol": __version__, "torch": version("torch"), "python": platform.python_version()},
    }


def _scan_summary(result: SegmentationResult) -> list[str]:
    request, segmentation = result.request, result.segmentation
    mask = segmentation.mask
    lines = [
        f"{request.mask}: {mask.volume_ml:.1f} ml, {mask.num_voxels} voxels ({segmentation.modality}, "
        f"{segmentation.model_id}, {result.seconds['total']:.1f} s)"
    ]
    if segmentation.expected is not None:
        lines.append(f"expected Dice {segmentation.expected}")
    if request.candidates:
        lines += [
            f"{request.candidate_path(number)}: {candidate.mask.volume_ml:.1f} ml, predicted Dice "
            f"{candidate.predicted_dice:.2f}"
            for number, candidate in enumerate(segmentation.candidates[1:], start=1)
        ]
    files = (("probability", request.probability), ("preview", request.preview))
    return lines + [f"{path}: {name}" for name, path in files if path is not None]


def _image_facts(result: ImageResult) -> dict[str, Any]:
    request, segmentation, cut = result.request, result.segmentation, result.slice_of_scan
    rows, columns = segmentation.mask.nonzero()
    bounds = [columns.min(), rows.min(), columns.max(), rows.max()] if rows.size else None

    def point(click: ImageClick) -> dict[str, Any]:
        place: dict[str, Any] = {"column_row": [round(click.column, 3), round(click.row, 3)]}
        if cut is not None:
            place["ijk"] = [round(v, 3) for v in cut.view.voxel_ijk(click.column, click.row)]
        return {**place, "foreground": click.foreground}

    return {
        "mask": str(request.mask),
        "preview": str(request.preview) if request.preview else None,
        "image": str(request.image),
        "image_rows_columns": list(segmentation.mask.shape),
        "slice": None
        if cut is None
        else {"axis": request.axis, "index": cut.view.index, "modality": cut.modality},
        "model": result.model_id,
        "points_from": request.points,
        "points": [point(click) for click in segmentation.prompts.clicks],
        "box_first_and_last_column_row": segmentation.prompts.box_xyxy_pixel,
        "pixels": int(segmentation.mask.sum()),
        "bounds_first_and_last_column_row": bounds and [int(v) for v in bounds],
        "predicted_iou": round(segmentation.iou, 4),
        "truth_dice": None if result.truth_dice is None else round(result.truth_dice, 4),
        "warnings": list(result.warnings),
        "seconds": round(result.seconds["total"], 3),
    }


def _image_summary(result: ImageResult) -> list[str]:
    request, mask = result.request, result.segmentation.mask
    lines = [
        f"{request.mask}: {int(mask.sum())} of {mask.size} pixels ({result.model_id}, "
        f"{result.seconds['total']:.1f} s)"
    ]
    if result.truth_dice is not None:
        lines.append(f"Dice against the truth {result.truth_dice:.3f}")
    return lines + ([f"{request.preview}: preview"] if request.preview else [])


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever JSON holds
    """Turn arrays and numpy numbers into what JSON knows, with three decimals."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return round(value, 3) if isinstance(value, float) else value
