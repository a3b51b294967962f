"""Stage 4: a patch to feature maps."""
