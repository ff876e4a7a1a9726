import sys
print([name for name in sys.modules if "services" in name or "perilune" in name])
