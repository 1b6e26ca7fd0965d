"""Token batch to logits or loss: the shape, the model, its first weights, and what it costs."""
