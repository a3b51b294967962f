"""ITK-SNAP's protocol for its deep learning service."""
