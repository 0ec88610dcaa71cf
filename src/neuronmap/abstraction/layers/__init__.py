"""How similar the representations of a model's layers are, to each other or to those of another model."""
