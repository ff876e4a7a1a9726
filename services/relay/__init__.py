"""The relay: serves weight versions on, for a fleet that is large, or far from the trainer. No engine, no torch.

joins          the master, as a member of the fleet that stands above the workers
consumes       weight versions of every run
produces       the same, for those that the master sends here
"""
