"""The model: image encoder with grouping, text encoder, losses, weights."""
