"""Weights with their provenance: cards, safe files, and the layouts of the official code."""
