"""Post-training quantisation by the engines' own quantisers, and which layers stay in floating point."""
