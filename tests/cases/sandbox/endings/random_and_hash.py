print(hash("a"), {"b", "a", "c"})
