import atexit, threading, time

atexit.register(lambda: [None for _ in iter(int, 1)])
threading.Thread(target=time.sleep, args=(100,)).start()
