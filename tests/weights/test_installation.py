import pytest

from clickvol.cli.app import main
from clickvol.weights import installation

REQUIRES = [
    "torch>=2.8",
    'highdicom>=0.26; extra == "dicom"',
    'pyjpegls>=1.5 ; extra == "dicom"',
    'clickvol[dicom]; extra == "archive"',
    'pynetdicom>=3.0; extra == "archive"',
    'pytest>=8.3; extra == "dev"',
    "fastapi>=0.115; extra == 'serve'",
]


@pytest.fixture
def only(monkeypatch):
    """Say which distributions there are."""

    def say(*names):
        monkeypatch.setattr(installation, "requires", lambda _: REQUIRES)
        monkeypatch.setattr(installation, "_version", lambda name: "1" if name in names else "missing")

    return say


def test_what_is_missing_comes_with_its_command(only, capsys):
    only("torch", "pyjpegls", "pynetdicom")
    extras = installation.describe_installation()["extras"]
    assert (
        extras["dicom (DICOM SEG, compressed DICOM)"] == 'missing highdicom; run: pip install "clickvol[dicom]"'
    )
    assert extras["serve (viewer, server)"] == 'missing fastapi; run: pip install "clickvol[serve]"'
    assert extras["archive (DICOM archives)"] == "installed"
    assert not [name for name in extras if "dev" in name]
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(': missing fastapi; run: pip install "clickvol[serve]"')]


@pytest.mark.parametrize(
    ("is_there", "cuda", "said"),
    [
        (True, "12.8", "used"),
        (False, None, "run: pip install --force-reinstall torch"),
        (False, "12.8", "run nvidia-smi"),
    ],
)
def test_why_no_gpu_is_used(monkeypatch, is_there, cuda, said):
    monkeypatch.setattr(installation.torch.cuda, "is_available", lambda: is_there)
    monkeypatch.setattr(installation.torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(installation.torch.version, "cuda", cuda)
    assert said in installation._gpu()
