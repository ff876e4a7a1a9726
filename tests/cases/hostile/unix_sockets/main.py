import socket

for name in (
    "\0perilune-sandbox-uid-61000", "\0perilune-sandbox-uid-61001", "\0hostile-listener", "/run/docker.sock",
    "/var/run/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "/tmp/.X11-unix/X0",
):
    try:
        socket.socket(socket.AF_UNIX).connect(name)
        print("escaped: reached", name)
    except OSError as error:
        pass
print("held")
