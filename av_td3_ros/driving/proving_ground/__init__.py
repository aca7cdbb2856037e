"""The empty ground under a vehicle in the loop."""
