"""The pass: rows of activations to the state of every feature, exact and mergeable."""
