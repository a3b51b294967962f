"""Models scored on labelled scans by a simulated user, and the tables that come of it."""
