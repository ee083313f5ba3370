#!/bin/sh
curl -sS --fail --cacert "$CA_FILE" --proxy "socks5h://${HTTPS_PROXY#http://}" "$URL"
