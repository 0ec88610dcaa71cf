"""Features: every feature of an SAE in one pass over the text, the feature store it leaves, and live use.

Names load on first use: what only reads a store (``neuronmap.features.store``, ``queries``, ``schema``) stays free of torch.
"""

from __future__ import annotations
