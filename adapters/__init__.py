"""The backends of podbridge: one module or package for each, found by its name."""
