"""OME-Zarr images (NGFF 0.1 to 0.5): folders of chunks at several resolutions, of which the finest is read."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import BadGeometryError, ScanTooLargeError, UnreadableVolumeError, require
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume, choose_volume
from clickvol.io.voxel_values import clean_values

_MARKERS = ("zarr.json", ".zattrs", ".zgroup")

_MM = {"meter": 1e3, "centimeter": 10.0, "millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6}

# NGFF's RFC-4; an axis runs "left-to-right", for instance.
_TOWARDS_RAS = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "anterior": (0, 1, 0),
    "posterior": (0, -1, 0),
    "superior": (0, 0, 1),
    "inferior": (0, 0, -1),
}
_ASSUMED = {"x": "left", "y": "posterior", "z": "superior"}

# Others of Zarr's codecs may run what a file says (pickle).
_CODECS = frozenset(
    ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "bytes", "transpose", "crc32c", "sharding_indexed")
)


def is_zarr(folder: Path) -> bool:
    """Tell whether a folder is the root of a Zarr store."""
    return any((folder / marker).is_file() for marker in _MARKERS)


def read_ome_zarr(path: Path, *, volume_index: int | None = None, limits: ReadLimits | None = None) -> Volume:
    """Read an image of one channel, at its finest resolution.

    `volume_index` is the time point, from 0. Without an orientation in the metadata its axes are taken to run
    to the left, back and head.

    Raises:
        UnreadableVolumeError: when the package zarr is missing, or the folder is damaged, no OME-Zarr image, of
            several channels, packed in an unknown way, of several times without a choice, or without content.
        BadGeometryError: a spacing or an orientation that cannot be used.
        ScanTooLargeError: more than the limits allow.
    """
    require("zarr", extra="zarr", purpose=f"{path}, a Zarr store,", error=UnreadableVolumeError)
    import zarr

    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
        image = attributes.get("ome", attributes)["multiscales"][0]
        finest = image["datasets"][0]
        names = [axis["name"] if isinstance(axis, Mapping) else axis for axis in image.get("axes", "tczyx")]
        axes = dict(zip(names, image.get("axes", "tczyx"), strict=True))
        stored = zarr.open_array(store=_checked_array(path, path / finest["path"]), mode="r")
        sizes = dict(zip(names, stored.shape, strict=True))
        shape_ijk = (int(sizes.get("x", 0)), int(sizes.get("y", 0)), int(sizes.get("z", 1)))
        if (
            not {"x", "y"} <= sizes.keys() <= set("tczyx")
            or sizes.get("c", 1) != 1
            or stored.dtype.kind not in "iuf"
        ):
            raise UnreadableVolumeError(
                f"{path} holds {stored.dtype} voxels with the axes {sizes}; one grey channel is expected"
            )
        time = choose_volume(path, (*shape_ijk, int(sizes.get("t", 1))), volume_index)
        if limits is not None:
            limits.check_voxels(math.prod(shape_ijk), str(path))
            limits.check_bytes(math.prod(shape_ijk) * stored.dtype.itemsize, str(path))
        affine, notes = _affine(path, axes, [finest, image])
        grid = VolumeGrid.from_ijk(shape_ijk, affine)
        voxels = np.asarray(stored[tuple({"t": time, "c": 0}.get(name, slice(None)) for name in names)])
    except (UnreadableVolumeError, BadGeometryError, ScanTooLargeError):
        raise
    except Exception as error:
        # zarr raises whatever its codecs and parsers met.
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise UnreadableVolumeError(
            f"{path} is no OME-Zarr image, or damaged ({reason}); export it again"
        ) from error
    order = [name for name in names if name in "zyx"]
    voxels = voxels.transpose([order.index(name) for name in "zyx" if name in order])
    array: NDArray[np.generic] = np.ascontiguousarray(voxels.reshape(shape_ijk[::-1]))
    array, value_notes = clean_values(array.astype(array.dtype.newbyteorder("="), copy=False), str(path))
    return Volume(array=array, grid=grid, source=str(path), notes=(*notes, *value_notes))


def _affine(
    path: Path, axes: Mapping[str, Any], holders: list[Mapping[str, Any]]
) -> tuple[NDArray[np.float64], list[str]]:
    """Return the affine of (i, j, k) in RAS mm, and notes."""
    scale, offset = np.ones(len(axes)), np.zeros(len(axes))
    for step in (step for holder in holders for step in holder.get("coordinateTransformations", ())):
        if step["type"] == "scale":
            scale, offset = scale * step["scale"], offset * step["scale"]
        elif step["type"] == "translation":
            offset = offset + step["translation"]
        else:
            raise UnreadableVolumeError(
                f"{path} has a transformation of type {step['type']}; export it without"
            )
    told = {name: axis if isinstance(axis, Mapping) else {} for name, axis in axes.items()}
    units = {name: told.get(name, {}).get("unit") for name in "xyz"}
    orientations = {name: told.get(name, {}).get("orientation") for name in "xyz"}
    notes = []
    if all(unit is None for name, unit in units.items() if name in axes):
        notes.append("There is no unit of length in the metadata; millimetres are assumed.")
    if not all(orientations.values()):
        orientations = {name: f"to-{end}" for name, end in _ASSUMED.items()}
        notes.append(
            "There is no orientation in the metadata; the axes x, y, z are assumed to run to the patient's "
            "left, back and head."
        )
    affine = np.eye(4)
    for column, name in enumerate("xyz"):
        at = list(axes).index(name) if name in axes else None
        towards = orientations[name]
        towards = towards["value"] if isinstance(towards, Mapping) else towards
        factor = _MM[units[name] or "millimeter"]
        direction = np.array(_TOWARDS_RAS[str(towards).rpartition("to-")[2]], dtype=np.float64)
        size, start = (1.0, 0.0) if at is None else (float(scale[at]) * factor, float(offset[at]) * factor)
        if not 0 < size < np.inf or not np.isfinite(start):
            raise BadGeometryError(
                f"{path}: the voxel spacing along {name} is {size:g} mm; repair the metadata"
            )
        affine[:3, column] = direction * size
        affine[:3, 3] += direction * start
    return affine, notes


def _checked_array(path: Path, array: Path) -> Path:
    """Return the folder of an array; refuse one elsewhere, or packed in other ways than those known."""
    if not array.resolve().is_relative_to(path.resolve()):
        raise UnreadableVolumeError(f"{path} names voxels outside of it, which are not read")
    metadata = array / "zarr.json" if (array / "zarr.json").is_file() else array / ".zarray"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    packing = [content.get(key) for key in ("codecs", "compressor", "filters")]
    unknown = sorted(set(_codecs(packing)) - _CODECS)
    if unknown:
        raise UnreadableVolumeError(
            f"{path} is packed as {unknown[0][:40]!r}, which is not read; save it as zstd"
        )
    return array


def _codecs(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        for item in value:
            yield from _codecs(item)
    elif isinstance(value, dict):
        if "id" in value or "name" in value:
            yield str(value.get("id", value.get("name")))
        for key in ("configuration", "codecs", "index_codecs"):
            yield from _codecs(value.get(key))
