"""What people, language models and rules say of features: the panel of a feature, tables, lists, blind tasks."""
