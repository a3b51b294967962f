"""What a step of training is, for volumes and for slices."""
