"""Labelled scans and the training samples drawn from them."""
