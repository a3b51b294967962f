"""Stage 6: feature maps to mask logits."""
