"""From a folder to parts on a device, and back: specs, sources, weights, provenance."""
