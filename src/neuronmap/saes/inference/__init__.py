"""Architectures that NeuronMap reads, runs and saves but does not train: one file each.

They come from elsewhere (SAELens, circuit-tracer, Llamascopium, ...). ``get_architecture`` and ``load_sae`` know them;
``list_architectures``, which configurations and forms offer for training, does not.

    transcoder         reads one hook and reconstructs another, with or without a skip connection
    crosscoder         reads and reconstructs several hooks together
    abstopk            top-k by magnitude; activations keep their sign
    matching_pursuit   picks features one after another, each for what the ones before left over
    temporal           predicts each token from the context by attention and encodes what is new
"""
