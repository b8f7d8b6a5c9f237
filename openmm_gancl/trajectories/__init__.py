"""The user's files: trajectories, series, blocks, COLVAR files, window tables, static biases."""
