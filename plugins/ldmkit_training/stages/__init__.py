"""What is trained: codecs, denoisers, classifiers and proposers."""
