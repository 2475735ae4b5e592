"""Edge lists against reference networks, beside baselines."""
