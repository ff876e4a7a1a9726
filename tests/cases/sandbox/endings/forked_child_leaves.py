import os
print("parent's", flush=True)
if os.fork() == 0:
    print("child's")
    raise SystemExit(4)
print(os.waitstatus_to_exitcode(os.wait()[1]))
