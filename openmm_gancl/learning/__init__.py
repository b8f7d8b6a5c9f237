"""Slow coordinates learned from frames: diffusion map, spectrum, torch map, distillation."""
