"""Verified search: candidates are measured, and the latency table is corrected by what is seen."""
