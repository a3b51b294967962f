"""One scan, one model, prompts in, a mask out."""
