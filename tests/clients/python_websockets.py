import asyncio
import os
import ssl

from websockets.asyncio.client import connect


async def main() -> None:
    url = os.environ["URL"]
    tls = ssl.create_default_context(cafile=os.environ["CA_FILE"]) if url.startswith("wss:") else None
    async with connect(url, proxy=os.environ["HTTPS_PROXY"], ssl=tls) as connection:
        await connection.send("hello")
        print(await connection.recv())


asyncio.run(main())
