"""What the code blocks of a document need: the files and names that they speak of, as phantoms."""

import contextlib
import json
import shutil

import numpy as np
import torch

from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom
from reference.data_sets import write_msd
from reference.dicom_series import write_as_series
from reference.document_blocks import PAGES, blocks_of
from reference.evaluation_sets import write_phantoms, write_raw
from reference.live_server import served
from reference.picture_folders import write_pictures


@contextlib.contextmanager
def prepared_page(page, folder):
    """Fill the working folder for a page.

    Yields:
        The names that its Python blocks begin with, and what of its code is replaced by what.
    """
    names, replaced = {}, {"--workers 2": "--workers 1", "--workers 4": "--workers 1"}
    with contextlib.ExitStack() as stack:
        prepare = _PAGES.get(page)
        if prepare is not None:
            prepare(folder, names, replaced, stack)
        yield names, replaced


def phantom():
    """Return a scan of 160 x 128 x 60 voxels (i, j, k), in which the clicks of the documents lie."""
    return make_phantom(8, shape_dhw=(60, 128, 160), tumour_diameter_mm=40)


def _write_scans(folder, *paths):
    scan = phantom()
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_volume(scan.volume.array, scan.volume.grid, folder / path)
    return scan


def _readme(folder, names, replaced, stack):
    scan = _write_scans(folder, "scan.nii.gz", "scan.mha")
    write_as_series(scan.volume, folder / "dicom_folder")
    (folder / "list.csv").write_text('scan,click,output\nscan.mha,"120,88,41",tumour.mha\n')


def _batch(folder, names, replaced, stack):
    _write_scans(folder, "ct/001.nii.gz")
    around_zero = np.diag([1.5, 1.5, 3.0, 1.0]) @ np.eye(4)[[2, 1, 0, 3]]  # of (d, h, w)
    around_zero[:3, 3] = (-60, -60, -45)
    mr = make_phantom(8, modality="MR", shape_dhw=(30, 80, 80), affine_ras_mm=around_zero)
    series = write_as_series(mr.volume, folder / "series")
    (folder / "dicom").mkdir()
    shutil.make_archive(folder / "dicom/007", "zip", series)
    (manifest,) = [block.code for block in blocks_of(_text("docs/how-to/batch.md")) if block.language == "csv"]
    (folder / "list.csv").write_text(manifest)


def _interactive(folder, names, replaced, stack):
    scan = _write_scans(folder, "scan.nii.gz")
    painted = np.zeros(scan.truth.array.shape, bool)
    painted[41, 88, 118:122] = True
    image = scan.volume.array
    names.update(painted=painted, image=image, target=np.zeros(image.shape, np.uint8))


def _server(folder, names, replaced, stack):
    from clickvol.server.app import create_app
    from clickvol.server.settings import ServerSettings
    from clickvol.weights.load import load_model

    _write_scans(folder, "scan.nii.gz")
    server = create_app(load_model(device="cpu"), ServerSettings(state_folder=folder / "state"))
    replaced["http://127.0.0.1:8000"] = stack.enter_context(served(server))


def _dicom(folder, names, replaced, stack):
    scan = phantom()
    write_as_series(scan.volume, folder / "CT_FOLDER")
    from clickvol import Mask, read_volume

    grid = read_volume(folder / "CT_FOLDER").grid
    halves = np.zeros((2, *grid.shape_dhw), np.uint8)
    halves[0, 10:20, 60:70, 60:70] = halves[1, 30:40, 60:70, 60:70] = 1
    names.update(first=Mask(halves[0], grid), second=Mask(halves[1], grid))


def _data(folder, names, replaced, stack):
    (fold,) = json.loads((folder / "configs/splits/sarcoma.json").read_text())
    cases = sorted({case for part in fold.values() for case in part})
    write_msd(folder.parent / "shared/data/Sarcoma_CT", cases)
    write_msd(folder / "Task10_Colon", ["colon_001", "colon_005", "colon_006"])


def _evaluate(folder, names, replaced, stack):
    write_phantoms(folder / "PREPARED", count=3)
    replaced["--data PREPARED --split test"] = "--data PREPARED --split test --seeds 1 --clicks 1,3"
    names["other_program"] = lambda array_dhw, voxels_ijk, inside: array_dhw > 30
    _write_challenge(folder / "DIR/CT_case.npz")
    shutil.copy(folder / "DIR/CT_case.npz", folder)
    (prompts,) = [
        block.code for block in blocks_of(_text("docs/how-to/evaluate.md")) if block.language == "json"
    ]
    (folder / "CT_case.prompts.json").write_text(prompts)


def _write_challenge(path):
    scan = make_phantom(3, shape_dhw=(24, 96, 96), tumour_diameter_mm=60)
    values = np.clip(scan.volume.array / 4 + 60, 0, 255).astype(np.uint8)
    path.parent.mkdir()
    np.savez_compressed(path, imgs=values, gts=scan.truth.array.astype(np.uint8), spacing=(1.5, 1.5, 3.3))


def _pictures(folder, names, replaced, stack):
    for number, name in enumerate(("polyps", "skin")):
        write_pictures(folder / name, [f"{name}{n}" for n in range(4)], first_seed=10 * number)


def _training(folder, names, replaced, stack):
    names.update(loss=torch.zeros(()), logits=torch.randn(1, 2, 8, 8, 8), label=torch.ones(1, 1, 8, 8, 8))


def _demo(folder, names, replaced, stack):
    _write_scans(folder, "demo/scan.nii.gz")  # where `clickvol demo` puts a larger one
    replaced["clickvol demo --out demo"] = "clickvol info"


def _fifty(folder, names, replaced, stack):
    _write_scans(folder, "scans/001.nii.gz", "scans/002.nii.gz")
    (manifest,) = [
        block.code for block in blocks_of(_text("docs/tutorials/fifty-masks.md")) if block.language == "csv"
    ]
    (folder / "list.csv").write_text(manifest)


def _train(folder, names, replaced, stack):
    write_phantoms(folder / "raw", count=3, write=write_raw)
    for part in ("images", "labels"):
        (folder / "MY_SCANS" / part).mkdir(parents=True)
        for number, path in enumerate(sorted((folder / "raw" / f"{part}Tr").iterdir())):
            path.rename(folder / "MY_SCANS" / part / f"a{number}.nii.gz")
    (config,) = [
        block.code for block in blocks_of(_text("docs/tutorials/train.md")) if block.language == "toml"
    ]
    (folder / "mine.toml").write_text(config)


_PAGES = {
    "README.md": _readme,
    "docs/how-to/batch.md": _batch,
    "docs/how-to/data.md": _data,
    "docs/how-to/dicom.md": _dicom,
    "docs/how-to/evaluate.md": _evaluate,
    "docs/how-to/interactive.md": _interactive,
    "docs/how-to/pictures.md": _pictures,
    "docs/how-to/server.md": _server,
    "docs/how-to/training.md": _training,
    "docs/how-to/viewers.md": _interactive,
    "docs/tutorials/fifty-masks.md": _fifty,
    "docs/tutorials/first-click.md": _demo,
    "docs/tutorials/train.md": _train,
}


def _text(page):
    return PAGES[page].read_text(encoding="utf-8")
