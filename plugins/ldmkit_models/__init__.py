"""Models that come with ldmkit: every folder here is a pipeline as `Pipeline.save` writes it.

`shapes`: coloured circles, squares, triangles and stars in boxes, by day, at dusk or at night, 64x64 pixels. It was
trained from nothing on pictures drawn by `examples/shapes.py`, by that script.
"""
