"""Episodes: where they begin, what they earn, how they end, what they were worth."""
