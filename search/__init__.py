"""Search under limits: constraints, evolution, random baseline, results."""
