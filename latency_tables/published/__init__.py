"""Latency tables of the published once-for-all code."""
