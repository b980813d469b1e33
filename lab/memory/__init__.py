"""What an algorithm learns from."""
