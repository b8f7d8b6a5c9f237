"""Free-energy surfaces and their error bars: from trajectories, from windows, and their pictures."""
