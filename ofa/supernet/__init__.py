"""One network that computes all its sub-networks, sorting of its channels, and extraction."""
