"""A network as a folder that runs elsewhere."""
