import os
import ssl
from urllib.request import urlopen

tls = ssl.create_default_context(cafile=os.environ["CA_FILE"])
with urlopen(os.environ["URL"], context=tls, timeout=30) as answer:
    print(answer.status, answer.read().decode())
