bytearray(1 << 34).find(b"x")
