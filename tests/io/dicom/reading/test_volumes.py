from pathlib import Path

import numpy as np
import pytest

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.headers import ImageFile
from clickvol.io.dicom.reading.slices import DicomSlice
from clickvol.io.dicom.reading.volumes import choose_series_volume, split_volumes
from clickvol.io.formats import read_volume

HEIGHTS = (0, 3, 6)


def slices(*volumes, heights=HEIGHTS):
    """Return the slices of volumes, each given by its marks."""
    return [
        DicomSlice(
            file=ImageFile(Path(f"IM{v}-{z}"), {}),
            frame=0,
            shape_hw=(5, 6),
            position_lps_mm=np.array([0.0, 0, z]),
            orientation_lps=np.array([1.0, 0, 0, 0, 1, 0]),
            spacing_hw_mm=(1, 1),
            slope=1,
            intercept=0,
            thickness_mm=3,
            sop_instance_uid=f"1.{v}.{z}",
            marks={name: value(z) if callable(value) else value for name, value in marks.items()},
            instance_number=v * len(heights) + k,
        )
        for v, marks in enumerate(volumes)
        for k, z in enumerate(heights)
    ]


def labels(volumes):
    return [(v.label, len(v.slices), v.is_whole) for v in volumes]


def test_one_volume_stays_one():
    (only,) = split_volumes(slices({"b-value": "0"}))
    assert len(only.slices) == 3


@pytest.mark.parametrize("name", ["b-value", "echo time in ms", "time point", "acquisition time", "image type"])
def test_volumes_are_told_apart_by_any_mark_in_its_order(name):
    volumes = split_volumes(slices({name: "1000"}, {name: "50"}, {name: "200"}))
    assert labels(volumes) == [(f"{name} {v}", 3, True) for v in (50, 200, 1000)]
    assert [s.path.name for s in volumes[0].slices] == ["IM1-0", "IM1-3", "IM1-6"]


def test_two_marks_where_one_is_not_enough():
    marks = [{"b-value": b, "image type": t} for b in ("0", "800") for t in ("M", "P")]
    assert labels(split_volumes(slices(*marks))) == [
        (f"b-value {b}, image type {t}", 3, True) for b in ("0", "800") for t in ("M", "P")
    ]


def test_a_time_of_every_slice_tells_nothing_apart():
    volumes = split_volumes(slices(*({"content time": lambda z, v=v: str(100 * v + z)} for v in range(2))))
    assert labels(volumes) == [(f"number {n} in the order of the series", 3, True) for n in range(2)]
    assert {s.path.name[:3] for s in volumes[1].slices} == {"IM1"}


def test_an_aborted_time_point_is_incomplete():
    dynamic = slices({"time point": "1"}, {"time point": "2"})[:-1]
    volumes = split_volumes(dynamic)
    assert labels(volumes) == [("time point 1", 3, True), ("time point 2", 2, False)]
    with pytest.raises(DicomSeriesError, match="volume 1 lacks slices that the other volumes have"):
        choose_series_volume(dynamic, 1, "ct")
    assert len(choose_series_volume(dynamic, 0, "ct")) == 3


def test_a_coarser_reconstruction_is_whole():
    both = slices({"kernel": "B30"}, heights=(0, 3, 6, 9, 12)) + [
        s for s in slices({}, {"kernel": "B60"}, heights=(0, 6, 12)) if "kernel" in s.marks
    ]
    assert labels(split_volumes(both)) == [("kernel B30", 5, True), ("kernel B60", 3, True)]


def test_a_copy_is_no_volume():
    copied = slices({"b-value": "0"})
    assert len(split_volumes([*copied, copied[1]])) == 1


def test_the_choice_is_listed():
    dynamic = slices({"b-value": "0"}, {"b-value": "800"})
    listed = r"0: b-value 0 \(3 slices\); 1: b-value 800 \(3 slices\)"
    with pytest.raises(DicomSeriesError, match=rf"holds 2 volumes.*--volume N: {listed}"):
        choose_series_volume(dynamic, None, "mr")
    with pytest.raises(DicomSeriesError, match=rf"no volume 2; it holds 2, for --volume: {listed}"):
        choose_series_volume(dynamic, 2, "mr")


@pytest.mark.parametrize(
    "marks", [{"TemporalPositionIdentifier": 4}, {"EchoTime": 4.0}, {"DiffusionBValue": 4.0}]
)
def test_a_volume_of_a_dicom_series_is_read(write_series, stored_pixels, marks):
    (name, value) = next(iter(marks.items()))
    write_series(**{name: value})
    folder = write_series(pixels=stored_pixels + 1, **{name: value * 2, "SeriesInstanceUID": "1.2.3.4"})
    for n, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"first{n}")
    write_series(**{name: value})
    with pytest.raises(DicomSeriesError, match="holds 2 volumes"):
        read_volume(folder)
    for index in (0, 1):
        volume = read_volume(folder, volume_index=index)
        np.testing.assert_array_equal(volume.array, stored_pixels.astype(int) - 1024 + index)


def test_a_volume_of_an_enhanced_file_is_read(tmp_path, enhanced_ct, stored_pixels):
    from pydicom.dataset import Dataset

    frames = enhanced_ct.PerFrameFunctionalGroupsSequence
    for n, frame in enumerate(frames):
        content = Dataset()
        content.TemporalPositionIndex = 1 + n % 2
        frame.FrameContentSequence = [content]
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 3 * (n // 2)]
    enhanced_ct.save_as(tmp_path / "enhanced", enforce_file_format=True)
    with pytest.raises(DicomSeriesError, match=r"0: time point 1 \(2 slices\); 1: time point 2"):
        read_volume(tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path, volume_index=1).array, stored_pixels[1::2] * 2.0 - 1000)
