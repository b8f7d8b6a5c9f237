"""Lifts: propose, relax, weigh, accept; their check, their surfaces, structures at a label."""
