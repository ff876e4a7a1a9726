"""What was thought after the runs were there; tasks, measures and comparisons were written before, in `claims`."""

NOTES: dict[str, str] = {}
