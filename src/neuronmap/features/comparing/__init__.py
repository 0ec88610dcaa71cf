"""Two SAEs compared: by direction, by firing, across models."""
