"""From logits to the distribution that is sampled: temperature, top-k, top-p, logits processors."""
