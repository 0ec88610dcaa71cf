"""Scores of probes, and how sure they are: AUC, resampling whole clusters, nulls by relabelling."""
