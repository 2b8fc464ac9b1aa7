"""Loading and saving of models: specs, sources, weights, provenance."""
