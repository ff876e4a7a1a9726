"""The policy: where it comes from, how sequences are packed, its log-probabilities."""
