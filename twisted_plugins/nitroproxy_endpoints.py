"""The ``vsock:`` endpoint strings."""

from nitroproxy.vsock.endpoints import VsockClientParser, VsockServerParser

server = VsockServerParser()
client = VsockClientParser()
