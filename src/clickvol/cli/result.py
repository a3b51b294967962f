"""The result of `clickvol segment` as JSON and as a line of text."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.predict.scan_job import ScanJobResult
from clickvol.version import __version__


def result_as_dict(result: ScanJobResult) -> dict[str, Any]:
    """Return what --json prints; every name carries its unit and convention."""
    job, segmentation = result.job, result.segmentation
    mask, grid = segmentation.mask, result.volume.grid
    box = segmentation.bounding_box()
    return {
        "mask": str(job.mask),
        "probability": str(job.probability) if job.probability else None,
        "preview": str(job.preview) if job.preview else None,
        "scan": str(job.scan),
        "modality": segmentation.modality,
        "model": segmentation.model_id,
        "volume_ml": round(mask.volume_ml, 4),
        "voxels": mask.num_voxels,
        "bounding_box_ijk_first_and_last_inclusive": _ijk_bounds(box) if box else None,
        "bounding_box_ras_mm_lowest_and_highest": _ras_bounds(box, grid) if box else None,
        "fields_of_view": [_plain(asdict(view)) for view in segmentation.fields_of_view],
        "warnings": list(result.warnings),
        "seconds": _plain(result.seconds),
        "seconds_of_first_click": _plain(segmentation.seconds),
        "versions": {
            "clickvol": __version__,
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }


def result_as_text(result: ScanJobResult) -> str:
    """Return the summary for a person: what was found, and where it is."""
    mask, seconds = result.segmentation.mask, result.seconds
    lines = [
        f"{result.job.mask}: {mask.volume_ml:.1f} ml, {mask.num_voxels} voxels "
        f"({result.segmentation.modality}, {result.segmentation.model_id}, "
        f"{seconds['total']:.1f} s)"
    ]
    for name, path in (("probability", result.job.probability), ("preview", result.job.preview)):
        if path is not None:
            lines.append(f"{path}: {name}")
    return "\n".join(lines)


def _ijk_bounds(box: VoxelBox) -> list[list[int]]:
    first = list(reversed(box.start_dhw))
    last = [stop - 1 for stop in reversed(box.stop_dhw)]
    return [first, last]


def _ras_bounds(box: VoxelBox, grid: VolumeGrid) -> list[list[float]]:
    """Bounds of the outer faces of the voxels, not of their centres."""
    faces = zip(np.array(box.start_dhw) - 0.5, np.array(box.stop_dhw) - 0.5, strict=True)
    corners = np.array([grid.to_world(VoxelPoint(d, h, w)).as_array() for d, h, w in product(*faces)])
    return [_plain(corners.min(axis=0)), _plain(corners.max(axis=0))]


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever JSON holds
    """Turn arrays and numpy numbers into what JSON knows, with three decimals."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return round(value, 3) if isinstance(value, float) else value
