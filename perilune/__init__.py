"""Perilune: reinforcement learning for language models, as services.

This package is what the services share and what other projects install: the contract (`perilune.api`), clients
(`perilune.client`), recipes, the bus, the command line. It never imports torch, and never a service.
"""
