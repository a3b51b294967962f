"""Networks that take no clicks, to compare with; `methods.baselines` gives them the shared interface."""
