"""ControlNet-XS."""
