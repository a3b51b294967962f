"""nnInteractive's remote protocol, for napari and 3D Slicer as they are."""
