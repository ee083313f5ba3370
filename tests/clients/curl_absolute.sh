#!/bin/sh
curl -sS --fail --request-target "$URL" "$HTTPS_PROXY"
