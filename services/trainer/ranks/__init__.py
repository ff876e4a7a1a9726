"""Several processes as one trainer."""
