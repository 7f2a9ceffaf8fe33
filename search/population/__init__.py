"""Populations of genomes: variation, selection, fronts, and a record of all that were considered."""
