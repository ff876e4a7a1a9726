import atexit, threading
def work():
    print("work")
def start():
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    except RuntimeError as error:
        print(error)
atexit.register(start)
