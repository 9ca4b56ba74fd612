"""One loop for both stages; checkpoints, journal, averages, objectives."""
