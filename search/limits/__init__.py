"""Upper bounds on estimated quantities, and what is reachable under them."""
