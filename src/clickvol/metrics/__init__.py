"""Stage 8: how well a mask agrees with the truth. Pure numpy."""
