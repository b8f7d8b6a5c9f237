"""What is simulated: cards, Systems, the declared state, constraints, a user's Simulation."""
