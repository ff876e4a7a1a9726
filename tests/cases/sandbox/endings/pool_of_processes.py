from concurrent.futures import ProcessPoolExecutor
def double(x):
    return 2 * x
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(double, range(4))))
