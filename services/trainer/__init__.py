"""The trainer: batches in, weight versions out."""
