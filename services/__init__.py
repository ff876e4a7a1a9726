"""The services. They import `perilune` and themselves, never each other."""
