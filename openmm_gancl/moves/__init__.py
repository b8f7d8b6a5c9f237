"""Lifts as moves in a script of the user's own."""
