"""``python -m neuronmap`` is the ``neuronmap`` command."""

from neuronmap.cli import main

if __name__ == "__main__":
    main()
