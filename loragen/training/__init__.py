"""Training of the shipped checkpoints: everything from scratch, seeded, on two CPU cores."""
