import os, sys
sys.stderr.write("kept back")
os._exit(0)
