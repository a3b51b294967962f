"""Samples that numpy draws case by case: the published methods' patches, and slices."""
