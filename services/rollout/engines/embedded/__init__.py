"""The engine in torch, inside the rollout worker."""
