import atexit, threading, time
def work():
    time.sleep(0.05)
    print("thread")
atexit.register(print, "exit function")
threading.Thread(target=work).start()
print("main")
