"""Stage 5: clicks to a conditioned feature map."""
