import contextlib, io
text = io.StringIO()
with contextlib.redirect_stdout(text):
    print("inside")
print(text.getvalue().upper(), end="")
