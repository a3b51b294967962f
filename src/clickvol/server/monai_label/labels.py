"""Labels that clients save: every version of every label stays.

    FOLDER/IMAGE/final-0001.nii.gz    the label, on the grid of its scan
    FOLDER/IMAGE/final-0001.json      what the client said of it, and when

The name of an image is written so that it is one name of a folder ("case-07/ct" is "case-07%2Fct"). A label
that was deleted has a last version without voxels.
"""

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from clickvol.files.atomic import make_folder, write_text
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import write_volume
from clickvol.server.refusal import RefusedError

FINAL = "final"
"""The tag of a label that is done; what MONAI Label's clients send where they say none."""

_SUFFIX = ".nii.gz"
_IMAGE = "image"  # .json: what was said of the image itself
_TAG = re.compile(r"[A-Za-z0-9_]{1,32}")
_VERSION = re.compile(r"(?P<tag>[A-Za-z0-9_]{1,32})-(?P<number>\d{4,9})(?P<suffix>\.nii\.gz|\.json)")
_MAX_FOLDER_NAME = 200


@dataclass(frozen=True, slots=True)
class SavedLabel:
    """The last version of a label: its file, and what was said of it."""

    path: Path
    tag: str
    version: int
    info: dict[str, Any]


class LabelFolder:
    """A folder of labels, made where it is missing; several servers may share it."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder

    def save(
        self, image: str, tag: str, array: NDArray[np.generic], grid: VolumeGrid, info: Mapping[str, Any]
    ) -> SavedLabel:
        """Write the next version of a label, (D, H, W) values; 422 for a name that no folder can have."""
        folder = self._folder_of(image)
        if _TAG.fullmatch(tag) is None:
            raise RefusedError(422, f"{tag[:40]!r} is no tag; give letters, digits and _, as {FINAL!r}")
        make_folder(folder)
        new = folder / f".new-{secrets.token_hex(8)}{_SUFFIX}"
        try:
            write_volume(array, grid, new)
            number = 1 + max((n for known, n in self._versions(folder) if known == tag), default=0)
            while True:
                place = folder / f"{tag}-{number:04d}{_SUFFIX}"
                try:
                    os.link(new, place)  # fails where another server has just written this version
                    break
                except FileExistsError:
                    number += 1
        finally:
            new.unlink(missing_ok=True)
        self._write_info(place, info)
        return SavedLabel(place, tag, number, dict(info))

    def latest(self, image: str, tag: str) -> SavedLabel:
        """Return the last version of a label; RefusedError 404 when there is none, or it was deleted."""
        label = self.labels(image).get(tag)
        if label is None:
            raise RefusedError(
                404, "there is no such label here; see /datastore/?output=all for those there are"
            )
        return label

    def labels(self, image: str) -> dict[str, SavedLabel]:
        """Return the last version of each label of an image, by tag."""
        folder = self._folder_of(image)
        last: dict[str, int] = {}
        for tag, number in self._versions(folder):
            last[tag] = max(number, last.get(tag, 0))
        known = {}
        for tag, number in sorted(last.items()):
            place = folder / f"{tag}-{number:04d}{_SUFFIX}"
            if place.is_file():
                known[tag] = SavedLabel(place, tag, number, _read_info(place))
        return known

    def say(self, label: SavedLabel, info: Mapping[str, Any]) -> None:
        """Put what is said of a label in the place of what was said before."""
        self._write_info(label.path, info)

    def image_info(self, image: str) -> dict[str, Any]:
        """Return what was said of an image."""
        return _read_info(self._folder_of(image) / _IMAGE)

    def say_of_image(self, image: str, info: Mapping[str, Any]) -> None:
        """Put what is said of an image in the place of what was said before."""
        make_folder(self._folder_of(image))
        self._write_info(self._folder_of(image) / _IMAGE, info)

    def delete(self, image: str, tag: str) -> None:
        """Let a label be gone for clients (404 when there is none); its versions stay in the folder."""
        label = self.latest(image, tag)
        place = label.path.with_name(f"{tag}-{label.version + 1:04d}{_SUFFIX}")
        self._write_info(place, {"deleted": True})

    def _folder_of(self, image: str) -> Path:
        name = quote(image, safe=" ")
        name = name.replace(".", "%2E") if not name.strip(". ") else name
        if not name or len(name) > _MAX_FOLDER_NAME:
            raise RefusedError(
                422, "the name of the image is empty or too long to keep labels of it; shorten it"
            )
        return self._folder / name

    def _write_info(self, place: Path, info: Mapping[str, Any]) -> None:
        said = {"saved_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **info}
        write_text(place.with_name(place.name.removesuffix(_SUFFIX) + ".json"), json.dumps(said, indent=2))

    @staticmethod
    def _versions(folder: Path) -> list[tuple[str, int]]:
        if not folder.is_dir():
            return []
        matches = (_VERSION.fullmatch(place.name) for place in folder.iterdir())
        return [(match["tag"], int(match["number"])) for match in matches if match]


def _read_info(place: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        info = json.loads(place.with_name(place.name.removesuffix(_SUFFIX) + ".json").read_text("utf-8"))
        if isinstance(info, dict):
            return info
    return {}
