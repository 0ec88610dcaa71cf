"""Live use: texts through an SAE, examples found, features changed, effects measured."""
