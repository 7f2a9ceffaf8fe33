"""Latency tables as values, files and estimators; loads without PyTorch."""
