"""What maps positions to numbers: slow coordinates, collective variables, features, restraint energies, basins."""
