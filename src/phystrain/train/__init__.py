"""The training run: stages, the one loop, checkpoints."""
