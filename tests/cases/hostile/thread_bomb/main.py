import threading, time

while True:
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
