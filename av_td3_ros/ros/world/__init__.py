"""The simulator's side of the topics."""
