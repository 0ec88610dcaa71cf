"""Hand-written forward and backward passes over :class:`~neuronmap.saes.workspace.Workspace` buffers."""
