import pickle
class P:
    x = 1
print(pickle.loads(pickle.dumps(P())).x)
