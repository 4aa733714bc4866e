"""Building blocks of networks. They know tensors and nothing of structures, files or training."""
