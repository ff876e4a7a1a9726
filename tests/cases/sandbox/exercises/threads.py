#%% right OK
import threading
class Account:
    def __init__(self): self.balance, self.lock = 0, threading.Lock()
    def deposit(self, n):
        with self.lock: self.balance += n
#%% wrong
class Account:
    def __init__(self): self.balance = 0
    def deposit(self, n): self.balance = n
#%% tests
import threading
from solution import Account
def test_threads():
    account = Account()
    threads = [threading.Thread(target=lambda: [account.deposit(1) for _ in range(10)]) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert account.balance == 40
