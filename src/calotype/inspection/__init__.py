"""Looking at runs and models with everything below: the report, and training as the doors call it."""
