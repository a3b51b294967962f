"""HTTP itself: connections, what every request must pass, and the process that listens."""
