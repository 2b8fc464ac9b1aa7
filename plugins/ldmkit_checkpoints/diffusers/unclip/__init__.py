"""unCLIP's parts in diffusers' layout: the prior, the text projection, the pipelines of Karlo."""
