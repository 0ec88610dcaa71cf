"""The Triton backend: what stands between the matrix products of a step, on CUDA, without the host ever waiting.

A step must not ask the device how many of anything there are: each such question stops the host until all work before it is done.
So every shape here is known in advance, and what depends on the data stays on the device:

- *A code has room for all it may hold* (B k entries for the top-k rules) and says where its rows start; what is left over lies
  behind the last row and is worth nothing (:attr:`~neuronmap.saes.kernels.code.SparseCode.padded`).
- *Exact selection of k in each row*: of whole rows, a block of them at a time. A row is read once, for the largest entry of each
  group of 32 features; the k largest entries lie in the k groups with the largest of these (``groups``).
- *Exact selection of B k in the batch, without a second pass.* Pre-activations come in blocks of features; of each block, what beats
  the bound so far is listed (``rows.collect``), and merged with the best of the blocks before (``batch``). A list holds a whole
  block, so it cannot overflow; the bound is the B k-th best so far, so what it drops can never come back. Nothing is
  guessed, so there is nothing to check or repeat. The first block is an eighth as wide: at its bound of 0 half of it is listed.
- *Rows are gathered slice by slice.* Decoder rows, errors and inputs are gathered in slices of 256 columns, all rows of a slice
  before the next: that slice of the table fits the cache, and a program's lanes hold 16 bytes of one entry each. Where the encoder's
  product is taken in bfloat16, so is what is gathered, and what the product comes to; sums are float32.
- *Thresholds are bit patterns.* Positive floating-point numbers order as their bits do. A row finds its cut bit by bit, the batch
  digit by digit with histograms; ties then go by position, in the order of the lists.
- *Sums have one order.* Entries are sorted by feature (``torch.sort``, stable), long features are cut into parts of fixed
  length, and parts are added in order. Only integers are added atomically. The same input gives the same bits.
- No kernel reads what it wrote itself: a kernel's end is the only fence that is relied on.

Matrix products, sorts and prefix sums are torch's. Selection inside the product (which would save writing the pre-activations
once) would need a product of our own as quick as cuBLAS's.

``encode_above`` is inherited from the torch backend: its contract is to stop when too many are found, which is to ask.

Modules: ``lists`` (device functions on lists of candidates), ``groups``, ``rows`` and ``batch`` (selection), ``search`` (what is
launched for it), ``products``, ``parameters``, ``tiles`` (how work is cut), ``runtime`` (whether it can run), ``backend``.
"""
