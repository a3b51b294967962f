"""The viewer's scripts under Node: their own tests, types by JSDoc, and style."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIRED = "CLICKVOL_REQUIRE_NODE" in os.environ

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None and not REQUIRED, reason="there is no Node here, 20 or newer"
)


@pytest.mark.parametrize("check", ["test", "types", "lint"])
def test_scripts_pass(check):
    if check != "test" and not (ROOT / "node_modules" / "typescript").is_dir() and not REQUIRED:
        pytest.skip("tsc and eslint are not here; make setup fetches them where it can")
    done = subprocess.run(
        ["npm", "run", "--silent", check], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_type_would_be_seen(tmp_path):
    compiler = ROOT / "node_modules" / ".bin" / "tsc"
    if not compiler.exists() and not REQUIRED:
        pytest.skip("tsc is not here; make setup fetches it where it can")
    wrong = tmp_path / "wrong.js"
    wrong.write_text("/** @type {number} */\nexport const n = 'three';\n", encoding="utf-8")
    words = [str(compiler), "--noEmit", "--allowJs", "--checkJs", str(wrong)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "TS2322" in done.stdout
