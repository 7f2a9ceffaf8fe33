"""Progressive shrinking: phases, sampling, distillation, schedule and the loop."""
