"""Prompts as files, ``<name>-<version>.txt``: a changed wording is a new version, and old scores still say which one they rest on."""
