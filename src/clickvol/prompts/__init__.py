"""Stage 3b: what the user points at."""
