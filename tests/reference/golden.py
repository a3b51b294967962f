"""Where the golden values lie."""

from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "golden"
