"""Looks a name up for IPv4 alone, as glibc does for a machine that has an IPv4 address (AI_ADDRCONFIG)."""

import socket
import sys

for found in socket.getaddrinfo(sys.argv[1], 443, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG):
    print(found[4][0])
