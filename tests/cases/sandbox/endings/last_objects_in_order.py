class Last:
    def __init__(self, name):
        self.name = name
    def __del__(self, show=print):
        show("gone", self.name)
a, b, _c = Last("a"), Last("b"), Last("c")
