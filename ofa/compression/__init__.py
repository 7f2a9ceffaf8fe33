"""Smaller networks from static networks."""
