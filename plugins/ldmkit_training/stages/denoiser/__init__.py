"""Training denoisers, and the conditioners and adapters beside them."""
