"""What every room stands on: shared types, counter-based randomness, strict configs, atomic files, errors."""
