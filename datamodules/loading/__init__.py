"""From examples to batches: data set, samplers, tokenizers, resume position."""
