#!/bin/sh
NODE_USE_ENV_PROXY=1 NODE_EXTRA_CA_CERTS="$CA_FILE" node --input-type=module --eval '
const answer = await fetch(process.env.URL);
console.log(answer.status, await answer.text());
'
