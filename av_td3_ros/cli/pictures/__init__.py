"""Plots and films."""
