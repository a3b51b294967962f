"""Which attributes of DICOM are read, copied, emptied and taken out: the lists of `attributes.toml`."""

import tomllib
from pathlib import Path

_LISTS = tomllib.loads(Path(__file__).with_name("attributes.toml").read_text(encoding="utf-8"))

OF_IMAGES: tuple[str, ...] = tuple(_LISTS["of_images"])
OF_PIXELS: tuple[str, ...] = tuple(_LISTS["of_pixels"])
OF_SERIES: tuple[str, ...] = tuple(_LISTS["of_series"])
OF_PATIENT_AND_STUDY: tuple[str, ...] = tuple(_LISTS["of_patient_and_study"])
NEVER_MISSING: tuple[str, ...] = tuple(_LISTS["never_missing"])
OF_WRITING: tuple[str, ...] = tuple(_LISTS["of_writing"])
MACROS: dict[str, list[str]] = _LISTS["macros"]
MARKS: dict[str, str] = _LISTS["marks"]
