"""Files and folders that ldmkit does not read: recognised, named, and what would load them."""
