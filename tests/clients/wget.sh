#!/bin/sh
https_proxy="$HTTPS_PROXY" wget -q -O - --ca-certificate="$CA_FILE" "$URL"
