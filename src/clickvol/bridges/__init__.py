"""Programs of others, run in an environment of their own on our data, their masks brought home."""
