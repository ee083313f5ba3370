#!/bin/sh
address=${URL#https://}
address=${address%%/*}
printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "/${URL#https://*/}" "$address" |
    openssl s_client -quiet -proxy "${HTTPS_PROXY#http://}" -connect "$address" -servername "${address%:*}" \
        -verify_return_error -verify_hostname "${address%:*}" -CAfile "$CA_FILE"
