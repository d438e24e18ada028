"""The frozen model: open it, name its target layers, give concepts their tokens."""
