"""Image sets: reading, splitting, augmenting and normalising."""
