"""What is learned of the fast degrees of freedom: networks, training, the model file, forces."""
