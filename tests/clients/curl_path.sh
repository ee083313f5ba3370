#!/bin/sh
curl -sS --fail "$HTTPS_PROXY/$URL"
