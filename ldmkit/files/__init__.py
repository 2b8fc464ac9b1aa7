"""Reading and writing users' files: pictures and JSON, with checks of paths and sizes."""
