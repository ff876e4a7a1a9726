import sys
class Out:
    def __init__(self, file):
        self.file, self.parts = file, []
    def write(self, text):
        self.parts.append(text)
    def flush(self):
        pass
    def __del__(self):
        self.file.write("".join(self.parts))
sys.stdout = Out(sys.stdout)
print("written when it goes")
