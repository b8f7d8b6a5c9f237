"""A run: options, folder, labelling, budget, stages, summary."""
