"""Many trainings of one run with other settings, and which of them are worth most."""
