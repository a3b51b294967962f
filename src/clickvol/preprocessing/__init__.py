"""Stage 2: what a scan's values mean, and how a model wants them."""
