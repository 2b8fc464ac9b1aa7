"""diffusers' folders: model_index.json and one folder per component, read and written."""
