import sys
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.name, stream.mode, stream.encoding, stream.errors, stream.line_buffering, stream.write_through,
          repr(stream.newlines), stream.isatty(), stream.closed, type(stream.buffer).__name__,
          type(stream.buffer.raw).__name__, stream.buffer.raw.closefd, stream.buffer.raw.name, stream.buffer.raw.mode)
print(sys.stdout is sys.__stdout__, sys.stdin.fileno(), repr(sys.stdout))
