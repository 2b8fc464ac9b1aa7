"""A procedural picture world in which every condition is known exactly, and measures that read it back."""
