"""From a composed config to Sessions that run."""
