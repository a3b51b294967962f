"""Training patches made on the device, a batch at a time, from scans that lie there."""
