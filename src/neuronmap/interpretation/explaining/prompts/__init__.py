"""Prompts as files, ``<name>-<version>.txt``: a changed wording is a new version, and old labels still say which one made them."""
