import sys, builtins
class Last:
    def __del__(self, show=print):
        sys.stdout and show("of sys")
sys.mine = Last()
builtins.mine = open(1, "w", closefd=False)
builtins.mine.write("of builtins\n")
