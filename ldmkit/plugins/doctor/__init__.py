"""`ldmkit plugins doctor`: diagnoses installed distributions and suggests remedies.

Plugins are examined in separate processes, so that one that hangs, crashes or exits does not affect the others.
Importing this package does not import torch.
"""

from __future__ import annotations
