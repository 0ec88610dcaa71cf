"""One concept measured: scores within and across conditions, nulls, controls, baselines, summary."""
