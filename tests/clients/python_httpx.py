import os
import ssl

import httpx

tls = ssl.create_default_context(cafile=os.environ["CA_FILE"])
with httpx.Client(proxy=os.environ["HTTPS_PROXY"], verify=tls) as client:
    answer = client.get(os.environ["URL"])
print(answer.status_code, answer.text)
