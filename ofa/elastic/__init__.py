"""Elastic operators and blocks: full-size parameters, of which each call uses a slice."""
