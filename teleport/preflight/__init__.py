"""May it move? Pure comparisons of two machines; every finding, not the first."""
