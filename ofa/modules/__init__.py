"""Plain PyTorch modules: static networks and their pieces."""
