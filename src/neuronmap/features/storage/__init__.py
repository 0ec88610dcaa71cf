"""The feature store on disk: schema, manifest, reading, queries, text. No torch."""
