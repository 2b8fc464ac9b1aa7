"""Files of IP-Adapters: image projections, and keys and values of pictures for each cross-attention."""
