"""Measuring on another device: kits and their results."""
