"""Container groups: what is asked of them, what becomes of them, and how they are told."""
