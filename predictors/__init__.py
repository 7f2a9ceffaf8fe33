"""Accuracy records, their collection, and predictors fitted on them."""
