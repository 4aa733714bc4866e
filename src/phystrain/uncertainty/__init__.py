"""Where a potential has left its data: models trained alike that disagree, and distances from the training set."""
