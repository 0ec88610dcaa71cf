"""Linear probes in closed form for all layers at once, their calibration, and a small MLP for what they miss."""
