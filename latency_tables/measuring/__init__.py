"""Measuring layers and networks on this machine."""
