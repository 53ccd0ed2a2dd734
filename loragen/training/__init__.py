"""Training of the demo checkpoint: everything from scratch, seeded, on two CPU cores."""
