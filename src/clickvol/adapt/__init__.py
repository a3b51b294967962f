"""A shipped model fitted to a user's own masks, in minutes."""
