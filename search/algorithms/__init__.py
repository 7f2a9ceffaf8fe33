"""Search algorithms, one file each, and their registry."""
