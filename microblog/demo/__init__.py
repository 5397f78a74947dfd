"""Demo data for development: ``flask demo``."""
