import io, sys
sys.stderr = io.StringIO()
sys.exit("swallowed")
