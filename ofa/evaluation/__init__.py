"""What a network is worth: batch-norm recalibration and evaluation."""
