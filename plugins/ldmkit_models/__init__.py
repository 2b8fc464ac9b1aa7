"""Models that come with ldmkit: every folder here is a pipeline as `Pipeline.save` writes it.

`miniworld`: landscapes of 64x64 pixels from text, a class, boxes and a semantic map, alone or in any combination. It
was trained from nothing by the recipes in `examples/miniworld`, on the pictures of `ldmkit_miniworld`.
"""
