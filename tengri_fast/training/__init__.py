"""Training: labels, datasets, a child process that fits, and the proof on unseen data."""
