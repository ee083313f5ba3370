#!/bin/sh
curl -sS --fail --cacert "$CA_FILE" "$URL"
