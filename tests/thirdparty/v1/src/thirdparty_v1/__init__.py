"""One part of each kind, against the first version of ldmkit's contracts."""
