"""The boot heartbeat, which nitro-cli waits for: the byte 0xb7 to port 9000 of the parent, CID 3, and back."""

import socket

with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as parent:
    parent.settimeout(10)
    parent.connect((3, 9000))
    parent.sendall(b"\xb7")
    if parent.recv(1) != b"\xb7":
        raise SystemExit("the parent did not answer the heartbeat")
