import socket

for family, address in (
    (socket.AF_INET, ("127.0.0.1", 22)), (socket.AF_INET, ("127.0.0.1", 4222)), (socket.AF_INET, ("127.0.0.1", 7050)),
    (socket.AF_INET, ("10.0.0.1", 80)), (socket.AF_INET, ("169.254.169.254", 80)), (socket.AF_INET, ("1.1.1.1", 53)),
    (socket.AF_INET, ("0.0.0.0", 7050)), (socket.AF_INET6, ("::1", 7050)),
):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            one = socket.socket(family, kind)
            one.settimeout(1)
            one.connect(address)
            one.send(b"x")
            print("escaped: reached", address)
        except OSError:
            pass
for family in (socket.AF_PACKET, socket.AF_NETLINK, socket.AF_VSOCK, 38):
    try:
        socket.socket(family, socket.SOCK_RAW)
        print("escaped: opened family", family)
    except OSError:
        pass
try:
    socket.getaddrinfo("example.org", 80)
    print("escaped: resolved")
except OSError:
    pass
print("held")
