"""The container's health check: exit status 0 when the gateway is ready. Python starts with -S, so it costs 0.05 s."""

import http.client
import os
import sys

PORT = int(os.environ.get("HOST_PROXY_PORT", "8080"))

connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=2)
try:
    connection.request("GET", "/health/ready")
    sys.exit(connection.getresponse().status != 200)
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"the gateway at port {PORT} does not answer: {error}")
