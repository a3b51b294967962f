"""What the documents tell a reader to type does what it says."""

import re
from pathlib import Path

import nbformat
import pytest

from reference.document_blocks import (
    PAGES,
    ROOT,
    Block,
    blocks_of,
    clickvol_words,
    command_lines,
    indented_blocks,
    inline_commands,
    parse,
    run,
    unknown_script_words,
    unknown_words,
)
from reference.document_pages import prepared_page

LANGUAGES = {"bash", "python", "toml", "json", "yaml", "csv", "text"}
RUN = ("bash", "python")

# Why a block is parsed and not run. What a test elsewhere does run is no reason.
REASONS = (
    "needs a cluster",
    "needs a download",
    "needs a GPU",
    "needs an archive",
    "needs another machine",
    "needs hours",
    "needs minutes",
    "needs several GPUs",
    "needs the data sets",
    "needs ten minutes",
    "makes an environment of its own",
)

TEXTS = {page: path.read_text(encoding="utf-8") for page, path in PAGES.items()}
BLOCKS = {page: blocks_of(text) for page, text in TEXTS.items()}
RUN_PAGES = [
    page for page, blocks in BLOCKS.items() if any(b.language in RUN and b.reason is None for b in blocks)
]


def test_blocks_are_found_with_their_reasons():
    text = "a\n\n<!-- not run: needs a GPU -->\n```bash\nx\n```\n\n- b\n\n  ```python\n  y = 1\n  ```\n"
    assert blocks_of(text) == [Block("bash", "x\n", "needs a GPU"), Block("python", "y = 1\n", None)]
    assert indented_blocks("a\n\n    code\n") == ["    code"]
    assert indented_blocks("a\n\n```\n\n    code\n```\n\n    - item\n") == []


def test_words_that_no_command_has_would_be_seen():
    assert unknown_words(["segment", "scan", "--click", "1,2,3", "-o", "x"]) == []
    assert unknown_words(["segment", "scan", "--klick=1,2,3"]) == ["--klick=1,2,3"]
    assert unknown_words(["models", "fetsh"]) == ["fetsh"]
    assert unknown_words(["batch", "--scheduler", "a", "--seeds", "3"]) == ["--seeds"]
    assert unknown_script_words(["python", "benchmarks/one_click.py", "--seeds", "--sheeds"]) == ["--sheeds"]
    assert unknown_script_words(["python", "benchmarks/none.py"]) == ["benchmarks/none.py"]


def test_a_line_of_the_shell_is_read_as_the_shell_reads_it():
    lines = command_lines("A=1 nohup clickvol train x \\\n  --steps 3 > log 2>&1 &  # hours\n\n# nothing\n")
    assert lines == [["A=1", "nohup", "clickvol", "train", "x", "--steps", "3", ">", "log", "2>&1", "&"]]
    assert clickvol_words(lines[0]) == ["train", "x", "--steps", "3"]
    assert clickvol_words(["pip", "install", "clickvol[serve]"]) is None


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_what_it_says(page):
    assert indented_blocks(TEXTS[page]) == [], "give code a fence"
    for block in BLOCKS[page]:
        assert block.language in LANGUAGES, block
        parse(block)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_in_its_sentences_are_there(page):
    if page != "CHANGELOG.md":
        assert [words for words in inline_commands(TEXTS[page]) if unknown_words(words)] == []


def test_a_block_that_is_not_run_says_why():
    marked = [block for blocks in BLOCKS.values() for block in blocks if block.reason is not None]
    assert [block.reason for block in marked if not block.reason.startswith(REASONS)] == []
    assert [block.language for block in marked if block.language not in RUN] == []
    num_run = sum(b.reason is None and b.language in RUN for blocks in BLOCKS.values() for b in blocks)
    assert len(marked) <= 48, "make it small enough to run"
    assert num_run >= 25


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(folder)
    with prepared_page(page, folder) as (names, replaced):
        for block in BLOCKS[page]:
            if block.reason is None:
                run(block, names, replaced)
    if page == "docs/how-to/evaluate.md":
        assert Path("CLICKED/report.md").is_file()


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count] == [], "store it without outputs"
    names = {}
    for cell in code:
        exec(compile(cell.source, path.name, "exec"), names)


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", TEXTS["README.md"], flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
