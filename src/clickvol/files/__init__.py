"""Files written whole, locked, and bounded."""
