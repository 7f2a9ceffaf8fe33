"""What a network consists of, as values: layers, families and their costs; loads without PyTorch."""
