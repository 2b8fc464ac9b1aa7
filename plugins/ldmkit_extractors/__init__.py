"""Hint pictures from pictures, keypoints and label maps."""
