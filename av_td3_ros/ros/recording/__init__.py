"""Transitions on their way to disk and to the learner."""
