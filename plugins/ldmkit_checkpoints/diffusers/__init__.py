"""diffusers' folders: model_index.json and a folder a component, read and written."""
