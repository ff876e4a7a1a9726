import logging, logging.handlers, sys
handler = logging.StreamHandler(sys.stdout)
memory = logging.handlers.MemoryHandler(100, target=handler)
logging.getLogger().addHandler(memory)
logging.getLogger().warning("kept in memory")
print("main")
