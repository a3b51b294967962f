"""What the README tells a user to type does what it says."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import SimpleITK

from clickvol.cli.app import main
from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom
from clickvol.weights.card import DEFAULT_MODEL_ID, find_card

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A folder with the scans that the README names, and a model in the place of the imported one."""
    folder = tmp_path_factory.mktemp("readme")
    phantom = make_phantom(8, shape_dhw=(60, 128, 160), tumour_diameter_mm=100)
    for name in ("scan.nii.gz", "scan.mha"):
        write_volume(phantom.volume.array, phantom.volume.grid, folder / name)
    (folder / "colon").mkdir()
    card = find_card(DEFAULT_MODEL_ID)
    for shipped in (card, card.with_suffix(".safetensors")):
        shutil.copy(shipped, folder / "colon")
    return folder


def test_the_python_example_runs(scans, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(scans)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    written = SimpleITK.ReadImage(str(scans / "mask.nii.gz"))
    assert written.GetSize() == (160, 128, 60)
    assert names["segmentation"].mask.num_voxels == SimpleITK.GetArrayFromImage(written).sum()


def _commands():
    lines = re.findall(r"^\.venv/bin/clickvol (segment .*)$", README, flags=re.MULTILINE)
    return [line.split("#")[0].strip() for line in lines]


def test_the_readme_shows_four_ways_to_segment():
    assert len(_commands()) == 4


@pytest.mark.parametrize("line", [c for c in _commands() if "dicom_folder" not in c])
def test_the_segment_commands_run(scans, monkeypatch, line):
    monkeypatch.chdir(scans)
    words = shlex.split(line)
    mask = scans / words[words.index("-o") + 1]
    mask.unlink(missing_ok=True)
    assert main(words) == 0
    assert mask.is_file()


def test_the_batch_command_runs(scans, monkeypatch):
    (line,) = re.findall(r"^\.venv/bin/clickvol (batch .*)$", README, flags=re.MULTILINE)
    monkeypatch.chdir(scans)
    Path("list.csv").write_text('scan,click,output\nscan.mha,"120,88,41",tumour.mha\n')
    assert main(shlex.split(line.split("#")[0])) == 0
    assert (scans / "masks" / "tumour.mha").is_file()


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
