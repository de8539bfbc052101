"""Point 4: the same command gives the same bytes."""
CHECKS = []
