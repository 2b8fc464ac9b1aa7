"""Files and folders that ldmkit does not read: what they are, and what would load them."""
