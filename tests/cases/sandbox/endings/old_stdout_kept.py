import io, sys
old = sys.stdout
sys.stdout = io.StringIO()
print("x")
old.write("x\n")
