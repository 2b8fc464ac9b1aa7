"""Contact sheets, drawings of conditions, and charts, with Pillow alone: what training, demos and comparisons show."""
