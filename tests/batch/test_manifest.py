from pathlib import Path

import pytest

from clickvol.batch.manifest import read_manifest
from clickvol.errors import ConfigError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.predict.segmentation_request import SegmentationRequest
from clickvol.prompts.click import Click

HEADER = "scan,click,space,output,series,volume,modality,model\n"


@pytest.fixture
def read(tmp_path):
    """Read a manifest of this text; outputs are relative to the folder `out`."""

    def read_text(text, **options):
        path = tmp_path / "list.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_manifest(path, tmp_path / "out", **options)

    return read_text


def test_a_row_is_the_job_that_its_cells_say(read, tmp_path):
    (row,) = read(HEADER + 'ct/1.nii.gz,"10,20,30; 1,2,3:-",ijk,a/m.nii.gz,1.2.3,2,MR,promise3d-small\n')
    assert (row.number, row.scan, row.output, row.problem) == (
        1, "ct/1.nii.gz", "a/m.nii.gz", None,
    )  # fmt: skip
    assert row.job == SegmentationRequest(
        scan=tmp_path / "ct/1.nii.gz",
        clicks=(Click(VoxelPoint(30, 20, 10)), Click(VoxelPoint(3, 2, 1), foreground=False)),
        mask=tmp_path / "out/a/m.nii.gz",
        series="1.2.3",
        volume_index=2,
        modality="MR",
        model="promise3d-small",
        device="auto",
    )


def test_what_is_not_said_is_taken_from_the_command(read, tmp_path, monkeypatch):
    rows = read(
        '\ufeffoutput, click ,scan\n\n/abs/m.nii.gz,,/abs/s.nii.gz\nm.nii.gz,"1,2,3",dicom\n',
        model="promise3d-small",
        device="cpu",
    )
    first, second = (row.job for row in rows)
    assert (first.scan, first.mask) == (Path("/abs/s.nii.gz"), Path("/abs/m.nii.gz"))
    assert (first.clicks, first.model, first.device) == ((), "promise3d-small", "cpu")
    assert second.scan == tmp_path / "dicom"
    assert (second.series, second.volume_index, second.modality) == (None, None, None)
    # From wherever the command is given, the paths are the same.
    monkeypatch.chdir(tmp_path)
    again = read_manifest(Path("list.csv"), Path("out"), model="promise3d-small", device="cpu")
    assert again == rows


def test_millimetres(read):
    rows = read('scan,click,output,space\ns,"1,2,3",a.nii.gz,ras\ns,"1,2,3",b.nii.gz,lps\n')
    assert [row.job.clicks[0].position for row in rows] == [
        WorldPointRAS(1, 2, 3),
        WorldPointRAS(-1, -2, 3),
    ]


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (',"1,2,3",,m.nii.gz', "the cell 'scan' cannot be used: Field required"),
        ('s,"1,2,3",,  ', "the cell 'output' cannot be used"),
        ("s,1,2,3,,m.nii.gz,,,,", "more cells than the header; put clicks in quotes"),
        ('s,"1,2",,m.nii.gz', "cannot read the click '1,2'"),
        ('s,"1,2,nan",,m.nii.gz', "give 3 finite numbers"),
        ('s,"1,2,3:-",,m.nii.gz', "no click inside the object"),
        ('s,"1,2,3",mm,m.nii.gz', "the cell 'space' cannot be used"),
        ('s,"1,2,3",,m.nii.gz,,two', "the cell 'volume' cannot be used"),
        ('s,"1,2,3",,m.nii.gz,,,US', "the cell 'modality' cannot be used"),
        ('s,"1,2,3",,m.nii.gz,,,,no-such-model', "no-such-model"),
    ],
)
def test_a_bad_row_says_why_and_leaves_the_others_alone(read, cells, problem):
    good = 'good.nii.gz,"1,2,3",,good-{}.nii.gz\n'
    before, bad, after = read(HEADER + good.format(1) + cells + "\n" + good.format(2))
    assert bad.job is None
    assert problem in bad.problem
    assert "\n" not in bad.problem
    assert (before.problem, after.problem) == (None, None)
    assert (before.number, bad.number, after.number) == (1, 2, 3)


def test_rows_that_would_overwrite_each_other_are_refused(read):
    rows = read(
        'scan,click,output\na.nii.gz,"1,2,3",x.nii.gz\nb.nii.gz,"1,2,3",./sub/../x.nii.gz\n'
        'c.nii.gz,"1,2,3",../a.nii.gz\nd.nii.gz,"1,2,3",y.nii.gz\n'
    )
    assert [row.problem for row in rows] == [
        None,
        "./sub/../x.nii.gz is the output of row 1 too; give each its own",
        "../a.nii.gz is the scan of row 1; give another output",
        None,
    ]


def test_the_key_changes_with_what_changes_the_mask(read, tmp_path):
    base = 'a.nii.gz,"1,2,3",,m.nii.gz,,,,'
    (row,) = read(HEADER + base)
    changes = [
        'b.nii.gz,"1,2,3",,m.nii.gz,,,,',
        'a.nii.gz,"1,2,4",,m.nii.gz,,,,',
        'a.nii.gz,"1,2,3;1,2,4:-",,m.nii.gz,,,,',
        'a.nii.gz,"1,2,3;1,2,4",,m.nii.gz,,,,',
        'a.nii.gz,"1,2,3",ras,m.nii.gz,,,,',
        'a.nii.gz,"1,2,3",,n.nii.gz,,,,',
        'a.nii.gz,"1,2,3",,m.nii.gz,7,,,',
        'a.nii.gz,"1,2,3",,m.nii.gz,,1,,',
        'a.nii.gz,"1,2,3",,m.nii.gz,,,MR,',
    ]
    keys = [read(HEADER + cells)[0].key for cells in changes]
    assert len({row.key, *keys}) == 10
    # The same job in other words, on another device and with the model named, has the same key.
    same = 'a.nii.gz," 1,2.0,3 ;",ijk,m.nii.gz,,,,promise3d-lesions'
    assert read(HEADER + same, device="cpu")[0].key == row.key
    assert read(HEADER + base, model="promise3d-lesions")[0].key == row.key


def test_another_model_gives_another_key_and_its_path_is_relative_too(read, tmp_path, monkeypatch):
    from clickvol.weights.card import find_card

    card = find_card("promise3d-small").read_text(encoding="utf-8")
    old = read('scan,click,output\na,"1,2,3",m.nii.gz\n')[0].key
    sha256 = __import__("json").loads(card)["sha256"]
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mine.json").write_text(card.replace(sha256, "0" * 64))
    monkeypatch.chdir("/")
    (row,) = read('scan,click,output,model\na,"1,2,3",m.nii.gz,models/mine.json\n')
    assert row.job.model == str(tmp_path / "models/mine.json")
    assert row.key not in (old, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column 'scan'"),
        ("scan,output\n", "lacks the column 'click'"),
        ("scan;click;output\n", "lacks the column 'scan'"),
        ("scan,click,output,colour\n", "has the column 'colour'"),
        ("scan,click,output,scan\n", "has the column 'scan', which is not known or there twice"),
        ("scan,click,output\n", "has a header and no rows"),
        (b"scan,click,output\n\xff\xfe\n", "is not a CSV file in UTF-8"),
        ('scan,click,output\na,"1,2,3,m.nii.gz\n', "is not a CSV file"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(read, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the manifest .*No such file"):
        read_manifest(tmp_path / "none.csv", tmp_path)
