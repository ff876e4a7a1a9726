"""Stands in for torchvision: its builds on PyPI do not fit a CPU build of torch. Text needs nothing of it."""

from absent import stand_in

__version__ = "0.0.0"
__getattr__ = stand_in("torchvision")
