"""Frames of the real potential: labels, Langevin dynamics, windows, steering, swarms, a user's own frames."""
