import os

import requests

proxies = {"https": os.environ["HTTPS_PROXY"].replace("http:", "socks5h:")}
answer = requests.get(os.environ["URL"], proxies=proxies, verify=os.environ["CA_FILE"], timeout=30)
print(answer.status_code, answer.text)
