import sys
out = open("/dev/stdout", "w")
out.write("by name\n")
print("by print")
