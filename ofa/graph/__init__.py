"""Any user's network as a supernet: capture, units that change together, checks, space and supernet."""
