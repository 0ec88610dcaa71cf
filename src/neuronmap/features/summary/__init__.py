"""From the state of a pass to the files of a feature store: statistics, examples, co-activation, overview."""
