"""What every room uses: text, lazy imports, random streams, signals and the terminal."""
