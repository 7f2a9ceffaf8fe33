"""What a search found, how, and as a file."""
