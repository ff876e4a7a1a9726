import sys
class Last:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        print(self.name, sys.version_info[0], len(__name__), helper())
def helper():
    return "helped"
last = Last("last")
