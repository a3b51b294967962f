"""Series that hold several volumes: time points, phases of the heart, b-values, echoes, reconstructions."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.geometry import SAME_POSITION_MM, slice_normal
from clickvol.io.dicom.reading.slices import DicomSlice

# More marks than two are never needed together: a volume of a third one has a time of its own.
_MAX_MARKS = 2
_MAX_NAMED_MARKS = 4
_MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class SeriesVolume:
    """One of the volumes of a series, with what tells it apart ("b-value 1000"); slices in any order."""

    slices: tuple[DicomSlice, ...]
    label: str
    is_whole: bool = True


def choose_series_volume(slices: Sequence[DicomSlice], index: int | None, source: str) -> Sequence[DicomSlice]:
    """Return the slices of one of the volumes of a series, from 0.

    DicomSeriesError for several volumes and no index, an index out of range, or an incomplete volume.
    """
    volumes = split_volumes(slices)
    if len(volumes) == 1:
        if index:
            raise DicomSeriesError(
                f"{source} is a DICOM series and holds volume 0 only; leave out --volume {index}"
            )
        return slices
    listed = "; ".join(f"{n}: {_described(v)}" for n, v in enumerate(volumes[:_MAX_LISTED]))
    more = f"; and {len(volumes) - _MAX_LISTED} more" if len(volumes) > _MAX_LISTED else ""
    if index is None:
        raise DicomSeriesError(
            f"{source} holds {len(volumes)} volumes, but one 3D scan is expected; pick one with --volume N: "
            f"{listed}{more}",
            volumes=tuple(volume.label for volume in volumes),
        )
    if not 0 <= index < len(volumes):
        raise DicomSeriesError(
            f"{source} has no volume {index}; it holds {len(volumes)}, for --volume: {listed}{more}"
        )
    if not volumes[index].is_whole:
        raise DicomSeriesError(
            f"{source}: volume {index} lacks slices that the other volumes have; choose a whole one: "
            f"{listed}{more}"
        )
    return volumes[index].slices


def _described(volume: SeriesVolume) -> str:
    whole = "" if volume.is_whole else ", incomplete"
    return f"{volume.label} ({len(volume.slices)} slices{whole})"


def split_volumes(slices: Sequence[DicomSlice]) -> list[SeriesVolume]:
    """Return the volumes of a series, ordered by what tells them apart.

    Slices lie in different volumes where they lie at one place. What tells them apart is the mark, or the two
    marks, that make the fewest volumes; without any it is their order in the series. It is one volume where no
    two slices lie at one place, or those that do are copies.
    """
    whole = [SeriesVolume(tuple(slices), "all slices")]
    if any(not np.allclose(s.orientation_lps, slices[0].orientation_lps, atol=1e-3) for s in slices):
        return whole
    places = _places(slices)
    most = int(np.bincount(places).max())
    images = {(s.sop_instance_uid or s.path, s.frame) for s in slices}
    if most == 1 or len(images) < len(slices):
        return whole
    keys = _keys_by_marks(slices, places, most)
    if keys is None:
        if len(slices) != most * len(set(places.tolist())):
            return whole  # one slice twice is no second volume
        keys = _keys_by_order(slices, places)
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    members = sorted(groups.items(), key=lambda item: [_sortable(text) for text in item[0]])
    all_places = [frozenset(places[indices].tolist()) for _, indices in members]
    largest = max(all_places, key=len)
    labels = _labels(slices, [indices for _, indices in members])
    return [
        SeriesVolume(tuple(slices[i] for i in indices), label, not _is_part(at, largest))
        for (_, indices), label, at in zip(members, labels, all_places, strict=True)
    ]


def _places(slices: Sequence[DicomSlice]) -> NDArray[np.int64]:
    """Return for each slice the number of its place along the normal, from 0."""
    heights_mm = np.array([s.position_lps_mm for s in slices]) @ slice_normal(slices[0])
    order = np.argsort(heights_mm, kind="stable")
    is_next = np.diff(heights_mm[order]) > 10 * SAME_POSITION_MM
    places = np.empty(len(slices), np.int64)
    places[order] = np.concatenate([[0], np.cumsum(is_next)])
    return places


def _keys_by_marks(
    slices: Sequence[DicomSlice], places: NDArray[np.int64], most: int
) -> list[tuple[str, ...]] | None:
    """Return for each slice the marks that keep slices at one place apart; None without such marks."""
    names = list(dict.fromkeys(name for s in slices for name in s.marks))
    names = [name for name in names if len({s.marks.get(name) for s in slices}) > 1]
    best: tuple[int, list[tuple[str, ...]]] | None = None
    for count in range(1, _MAX_MARKS + 1):
        for chosen in itertools.combinations(names, count):
            keys = [tuple(s.marks.get(name, "") for name in chosen) for s in slices]
            num_volumes = len(set(keys))
            is_apart = len(set(zip(keys, places.tolist(), strict=True))) == len(slices)
            # A time that every slice has for itself tells no volumes apart.
            if is_apart and num_volumes <= 2 * most and (best is None or num_volumes < best[0]):
                best = num_volumes, keys
        if best is not None:
            return best[1]
    return None


def _keys_by_order(slices: Sequence[DicomSlice], places: NDArray[np.int64]) -> list[tuple[str, ...]]:
    order = sorted(
        range(len(slices)), key=lambda i: (slices[i].instance_number or 0, slices[i].name, slices[i].frame)
    )
    counts: dict[int, int] = {}
    keys: list[tuple[str, ...]] = [()] * len(slices)
    for index in order:
        place = int(places[index])
        keys[index] = (str(counts.get(place, 0)),)
        counts[place] = counts.get(place, 0) + 1
    return keys


def _labels(slices: Sequence[DicomSlice], groups: list[list[int]]) -> list[str]:
    """Return for each volume what is the same in all its slices and not the same in all volumes."""
    named: list[list[str]] = [[] for _ in groups]
    for name in dict.fromkeys(name for s in slices for name in s.marks):
        values = [{slices[i].marks.get(name, "unknown") for i in group} for group in groups]
        if all(len(v) == 1 for v in values) and len(set().union(*values)) > 1:
            for texts, value in zip(named, values, strict=True):
                texts.append(f"{name} {next(iter(value))}")
    return [
        ", ".join(texts[:_MAX_NAMED_MARKS]) or f"number {n} in the order of the series"
        for n, texts in enumerate(named)
    ]


def _sortable(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _is_part(places: frozenset[int], largest: frozenset[int]) -> bool:
    """Tell whether places are some of the largest volume's, at its distances; a coarser volume is whole."""
    if places == largest or not places < largest:
        return False
    distances, usual = np.diff(sorted(places)), np.diff(sorted(largest))
    return distances.size == 0 or int(distances.min()) == int(usual.min())
