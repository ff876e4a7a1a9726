import subprocess, sys
print("after")
subprocess.run([sys.executable, "-c", "print('before')"])
