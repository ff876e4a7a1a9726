import contextlib, io
r = contextlib.redirect_stdout(io.StringIO())
r.__enter__()
print("inside")
