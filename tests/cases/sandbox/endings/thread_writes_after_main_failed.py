import threading, time
def work():
    time.sleep(0.05)
    print("thread")
threading.Thread(target=work).start()
raise ValueError("main failed")
