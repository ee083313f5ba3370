"""UDP to anywhere is refused at once, so that what can do without falls back."""

import socket

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.settimeout(5)
    udp.connect(("192.0.2.10", 443))
    udp.send(b"x")
    try:
        udp.recv(1)
    except ConnectionRefusedError:
        print("refused")
