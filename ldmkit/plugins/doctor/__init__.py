"""`ldmkit plugins doctor`: what is wrong with which installed distribution, why, and what helps.

Plugins are looked at in processes of their own, so that one that hangs, crashes or ends its process takes nothing with
it. Importing this package imports no torch.
"""

from __future__ import annotations
