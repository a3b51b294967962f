"""Files that somebody or something broke: whatever is in them, every reader reads or refuses in one line.

A seed gives a file, and a few changes to it: a byte, a stretch, a word of the header, an attribute.
CLICKVOL_FUZZ_SECONDS says how long to go on, CLICKVOL_FUZZ_SEED where to begin; a failure names its seed.
"""

import gzip
import io
import os
import random
import re
import struct
import time
import warnings
import zipfile
from functools import partial

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import zstandard
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from clickvol.errors import ClickvolError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.dicom.reading.series import list_series
from clickvol.io.formats import read_volume
from clickvol.io.nifti.files import write_nifti
from reference.dicom_files import enhanced, make_slice

NUM_SEEDS = 30
PIXELS = (np.arange(120).reshape(4, 5, 6) * 9 + 500).astype(np.uint16)
GRID = VolumeGrid.axial((4, 5, 6), (3.0, 2.0, 2.0))
WORDS = [
    b"",
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e400",
    b"99999999999999999999",
    b"none",
    b"(0,0,0)",
    b"\xff\xfe",
    b"a" * 300,
]
VRS = ["DS", "IS", "LO", "UI", "US", "SS", "FD", "OB", "SQ", "UN", "CS", "AT"]
VALUES = {
    "DS": ["1", "-0.0", "nan", "1e400", "", "1\\2", "1\\2\\3\\4\\5\\6\\7", "x"],
    "IS": ["1", "-5", "99999999999", "", "S3", "1.5"],
    "US": [0, 1, 65535, [1, 2]],
    "SS": [-1, 0, [3, 4]],
    "FD": [float("nan"), float("inf"), 1e308, [1.0, 2.0]],
    "OB": [b"", b"\0\1", b"\xff" * 9],
    "UN": [b"", b"\0\1\2", b"ab"],
    "AT": [0x00280010],
}


def change_bytes(rng, content):
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(min(len(changed), rng.choice([400, len(changed)])))
        kind = rng.randrange(5)
        if kind == 0:
            changed[place] = rng.randrange(256)
        elif kind == 1:
            changed[place : place + 4] = rng.choice(
                [b"\0" * 4, b"\xff" * 4, b"\0\0\xc0\x7f", b"\xff\xff\xff\x7f"]
            )
        elif kind == 2:
            del changed[place : place + rng.randrange(1, 40)]
        elif kind == 3:
            changed[place:place] = rng.randbytes(rng.randrange(1, 20))
        else:
            del changed[max(place, 1) :]
    return bytes(changed)


def change_words(rng, content, separator):
    """Change the value, or the name, of a line of a text header, or repeat or remove the line."""
    head, blank, rest = content.partition(b"\n\n")
    lines = head.split(b"\n")
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.randrange(1, len(lines))
        name, _, value = lines[at].partition(separator)
        words = value.split() or [b""]
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        change = rng.randrange(4)
        if change == 0:
            lines[at] = name + separator + b" " + b" ".join(words)
        elif change == 1:
            lines.insert(at, lines[at])
        elif change == 2 and len(lines) > 2:
            del lines[at]
        else:
            lines[at] = name + separator + b" " + rng.choice(WORDS)
    return b"\n".join(lines) + blank + rest


def nifti_file(rng, folder, suffix):
    path = folder / "scan.nii"
    write_nifti(rng.choice([PIXELS, PIXELS.astype(np.float64)]), GRID, path)
    content = path.read_bytes()
    path.unlink()
    if suffix == ".hdr":
        nibabel.save(nibabel.Nifti1Pair(PIXELS.T.astype(np.int16), np.eye(4)), folder / "scan.hdr")
        content = (folder / "scan.hdr").read_bytes()
    elif suffix == ".mgz":
        nibabel.save(nibabel.MGHImage(PIXELS.T.astype(np.int16), np.eye(4)), folder / "scan.mgz")
        content = gzip.decompress((folder / "scan.mgz").read_bytes())
    before = rng.random() < 0.7
    content = change_bytes(rng, content) if before else content
    content = gzip.compress(content, 1) if suffix in (".nii.gz", ".mgz") else content
    content = zstandard.compress(content) if suffix == ".nii.zst" else content
    if not before:
        content = change_bytes(rng, content)
    (folder / f"scan{suffix}").write_bytes(content)
    return folder / f"scan{suffix}"


def itk_file(rng, folder, *suffixes):
    suffix = rng.choice(suffixes)
    path = folder / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(PIXELS), str(path), useCompression=rng.random() < 0.5)
    separator = b":" if suffix in (".nrrd", ".nhdr") else b" ="
    change = rng.choice([lambda c: change_words(rng, c, separator), lambda c: change_bytes(rng, c)])
    path.write_bytes(change(path.read_bytes()))
    return path


def change_attributes(rng, dataset):
    """Remove, repeat or retype attributes of a data set, or give them values out of range."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        holder = dataset
        while rng.random() < 0.7:
            below = [item for e in holder if e.VR == "SQ" for item in e.value]
            if not below:
                break
            holder = rng.choice(below)
        tags = [e.tag for e in holder if e.keyword != "PixelData"]
        if not tags:
            continue
        tag = rng.choice(tags)
        if rng.random() < 0.3:
            del holder[tag]
            continue
        vr = holder[tag].VR if rng.random() < 0.6 else rng.choice(VRS)
        vr = rng.choice(VRS) if vr == "SQ" and rng.random() < 0.5 else vr
        value = [] if vr == "SQ" else rng.choice(VALUES.get(vr, ["", "x", "a\\b", "1.2", "\x00", "é" * 70]))
        if isinstance(value, str):
            # As bytes: pydicom writes no value that breaks its type.
            content = value.encode("utf-8", "replace") + b" " * (len(value.encode()) % 2)
            holder[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)
        else:
            holder[tag] = pydicom.DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)


def dicom_content(rng, dataset):
    if rng.random() < 0.3:
        dataset.compress(RLELossless)
    if rng.random() < 0.8:
        change_attributes(rng, dataset)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=False)
    content = stream.getvalue()
    return change_bytes(rng, content) if rng.random() < 0.4 else content


def dicom_series(rng, folder, kind):
    folder = folder / "series"
    folder.mkdir()
    datasets = (
        [enhanced(PIXELS)] if kind == "enhanced" else [make_slice(plane, n) for n, plane in enumerate(PIXELS)]
    )
    changed = rng.randrange(len(datasets)) if rng.random() < 0.5 else None
    for number, dataset in enumerate(datasets):
        stream = io.BytesIO()
        if changed in (None, number):
            content = dicom_content(rng, dataset)
        else:
            dataset.save_as(stream, enforce_file_format=True)
            content = stream.getvalue()
        (folder / f"IM{number}").write_bytes(content)
    if kind == "zip":
        archive = folder.parent / "series.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in folder.iterdir():
                file.write(path, path.name)
        if rng.random() < 0.5:
            archive.write_bytes(change_bytes(rng, archive.read_bytes()))
        return archive
    return folder


def dicom_mask(rng, folder, kind):
    dataset = enhanced(PIXELS)
    if kind == "SEG":
        dataset.SOPClassUID, dataset.SegmentationType = "1.2.840.10008.5.1.4.1.1.66.4", "FRACTIONAL"
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = 1, "a"
        dataset.SegmentSequence = [segment]
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            identity = Dataset()
            identity.ReferencedSegmentNumber = 1
            frame.SegmentIdentificationSequence = [identity]
    else:
        dataset = make_slice(PIXELS[0], 0, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
        region, item, contour = Dataset(), Dataset(), Dataset()
        region.ROINumber, region.ROIName = 1, "a"
        item.ReferencedROINumber = 1
        contour.ContourGeometricType, contour.ContourData = "CLOSED_PLANAR", [0, 0, 0, 6, 0, 0, 6, 6, 0]
        item.ContourSequence = [contour]
        dataset.StructureSetROISequence, dataset.ROIContourSequence = [region], [item]
    (folder / "mask.dcm").write_bytes(dicom_content(rng, dataset))
    return folder / "mask.dcm"


def read(path, rng):
    limits = rng.choice([None, ReadLimits(max_voxels=10_000, max_bytes_unpacked=1_000_000)])
    if path.suffix == ".dcm":
        read_mask_file(path, rng.choice([GRID, None]))
        return
    volume = read_volume(path, volume_index=rng.choice([None, None, 0, 1]), limits=limits,
                         resample_gaps=rng.random() < 0.5)  # fmt: skip
    assert volume.array.shape == volume.grid.shape_dhw
    assert np.isfinite(volume.array).all()
    if path.is_dir() and path.suffix != ".zarr":
        list_series(path)


def try_seed(make, seed, folder):
    """Return whether the seed made a file; raise what its reader should not."""
    rng = random.Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom's writer
        try:
            path = make(rng, folder)
        except (OSError, ValueError, TypeError, AttributeError, NotImplementedError, struct.error):
            return False  # what pydicom cannot write
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read(path, rng)
        except ClickvolError as error:
            if "\n" in str(error) or "unexpected" in str(error) or len(str(error)) > 2000:
                raise ValueError(f"not one line: {error!r}") from error
    return True


def zarr_folder(rng, folder):
    zarr = pytest.importorskip("zarr")
    path, version = folder / "scan.zarr", rng.choice([2, 3])
    group = zarr.open_group(path, mode="w", zarr_format=version)
    scale = [{"type": "scale", "scale": [3.0, 2.0, 2.0]}]
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    image = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs.update({"ome": {"multiscales": image}} if version == 3 else {"multiscales": image})
    group.create_array("0", data=PIXELS, chunks=(3, 5, 6))
    for _ in range(rng.choice([1, 1, 2])):
        changed = rng.choice(sorted(p for p in path.rglob("*") if p.is_file()))
        if changed.suffix == ".json" or changed.name.startswith(".z"):
            text = changed.read_text()
            words = re.findall(r'"[^"]*"|-?[\d.]+|null|true|\[\]', text)
            values = [
                "0",
                "-1",
                "1e400",
                "null",
                '""',
                '"x"',
                "[]",
                "{}",
                "99999999999999999999",
                "NaN",
                "[1, 2]",
            ]
            if not words:
                continue
            word = rng.choice(words)
            at = rng.choice([m.start() for m in re.finditer(re.escape(word), text)])
            changed.write_text(text[:at] + rng.choice(values) + text[at + len(word) :])
        else:
            changed.write_bytes(change_bytes(rng, changed.read_bytes()))
    return path


READERS = {
    "NIfTI": partial(nifti_file, suffix=".nii"),
    "gzip": partial(nifti_file, suffix=".nii.gz"),
    "zstd": partial(nifti_file, suffix=".nii.zst"),
    "pair": partial(nifti_file, suffix=".hdr"),
    "MGH": partial(nifti_file, suffix=".mgz"),
    "NRRD": lambda rng, folder: itk_file(rng, folder, ".nrrd", ".nhdr"),
    "MetaImage": lambda rng, folder: itk_file(rng, folder, ".mha", ".mhd"),
    "DICOM": partial(dicom_series, kind="classic"),
    "enhanced DICOM": partial(dicom_series, kind="enhanced"),
    "zip": partial(dicom_series, kind="zip"),
    "SEG": partial(dicom_mask, kind="SEG"),
    "RTSTRUCT": partial(dicom_mask, kind="RTSTRUCT"),
    "OME-Zarr": zarr_folder,
}


@pytest.mark.parametrize("make", READERS.values(), ids=READERS)
def test_no_file_ends_in_an_unexpected_error(tmp_path, make):
    seconds = float(os.environ.get("CLICKVOL_FUZZ_SECONDS", "0"))
    first = int(os.environ.get("CLICKVOL_FUZZ_SEED", "0"))
    started, seed, num_made, failures = time.monotonic(), first, 0, []
    while seed < first + NUM_SEEDS or time.monotonic() < started + seconds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            num_made += try_seed(make, seed, folder)
        except Exception as error:
            failures.append(f"seed {seed}: {type(error).__name__} {error}"[:300])
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
        seed += 1
    assert num_made > (seed - first) / 2
    assert not failures, f"{len(failures)} of {seed - first}:\n" + "\n".join(failures[:20])
