"""What made the pocket pair: text, training, distillation, evaluation, recordings."""
