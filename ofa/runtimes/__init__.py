"""Engines outside PyTorch eager: how a network is converted to an engine's files, and how these are run."""
