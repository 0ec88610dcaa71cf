"""Sweeps: many SAEs trained from one pass of the model and one shuffled stream."""
