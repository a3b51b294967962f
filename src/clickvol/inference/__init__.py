"""Using a trained model: from a scan and clicks to a mask."""
