"""Networks that read hints, alone in a file or folder: T2I-Adapter, ControlNet and its relatives."""
