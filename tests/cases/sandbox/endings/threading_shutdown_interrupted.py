import threading, _thread, time
def work():
    time.sleep(0.05)
    _thread.interrupt_main()
    time.sleep(0.1)
    print("thread")
threading.Thread(target=work).start()
print("main")
