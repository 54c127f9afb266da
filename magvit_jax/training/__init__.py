"""Training: the loop, evaluation, and what a run depends on."""
