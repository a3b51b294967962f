"""Sessions: objects, undo, record, replay."""
