"""Words for pictures: captioners on networks that describe them, and writing captions beside data."""
