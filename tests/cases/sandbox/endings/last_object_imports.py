class Last:
    def __del__(self):
        try:
            import json.tool
            print("imported")
        except ImportError as error:
            print("too late")
last = Last()
