"""Training steps and dynamics beside those of other packages, each in an environment of its own."""
