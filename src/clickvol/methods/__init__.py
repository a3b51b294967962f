"""One page per published method: its configuration, its parts, how they are wired."""
