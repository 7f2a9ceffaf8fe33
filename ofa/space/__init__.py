"""What may vary: genes, search spaces and sub-networks; loads without PyTorch."""
