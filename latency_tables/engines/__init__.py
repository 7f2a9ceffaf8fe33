"""One file per inference engine that can time layers and networks."""
