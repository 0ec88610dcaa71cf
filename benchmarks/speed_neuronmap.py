"""Speed worker of NeuronMap itself; started by ``benchmarks/speed.py`` in NeuronMap's environment."""

from __future__ import annotations

import neuronmap
from speed_session import OurTrainer, parts_of_step
from speed_worker import Worker, serve

if __name__ == "__main__":
    serve(Worker(OurTrainer, {"neuronmap": neuronmap.__version__}, parts_of_step))
