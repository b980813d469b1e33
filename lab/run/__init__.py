"""Run directories: their paths and formats, who holds them, how far they are, and the code that made them."""
