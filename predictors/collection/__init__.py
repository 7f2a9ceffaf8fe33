"""Measuring sub-networks: which ones, and the records of them."""
