for number in range(50):
    with open(f"{number:02}", "wb") as file:
        file.truncate(1 << 20)
print("held")
