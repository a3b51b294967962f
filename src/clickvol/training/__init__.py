"""From labelled scans to a model with a card."""
