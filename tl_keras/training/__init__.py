"""The training loop and its parts: steps, optimizers, schedules, losses, checkpoints and evaluation."""
