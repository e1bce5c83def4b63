"""The training loop and what it is made of: steps, optimizers, schedules, losses, checkpoints and evaluation."""
