"""Roads, routes, and where a vehicle is on them."""
