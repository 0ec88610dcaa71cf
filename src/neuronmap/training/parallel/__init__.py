"""One SAE trained by several processes under torchrun: each takes its share of every batch (docs/decisions/0017-many-processes.md)."""
