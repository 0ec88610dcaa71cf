"""The backend ``native``: the sparse step in C (``engine.c``, ``kernels.h``), called through ctypes.

``build.py`` compiles it when the package is installed, if there is a C compiler; wheels carry it compiled. Without it the
backend ``torch`` runs (docs/decisions/0006).
"""
