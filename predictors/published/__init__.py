"""Predictors of the published once-for-all code."""
