"""A run: options, folder, labelling, budget, stages, summary."""

from .options import RunOptions as RunOptions
