"""Holds what engines, trainer and reward models share of a model; in `perilune`, torch is imported only here."""
