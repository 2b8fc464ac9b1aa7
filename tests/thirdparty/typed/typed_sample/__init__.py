"""A conditioner, a sampler, and code that loads, samples and trains: all of it from ldmkit's public surface."""
