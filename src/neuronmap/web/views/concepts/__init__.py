"""What the pages of the abstraction tracker show: typed contexts, made from stored reports alone."""
