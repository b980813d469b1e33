"""Commands on a run directory."""
