import asyncio
import os

from websockets.asyncio.client import connect


async def main() -> None:
    proxy = os.environ["HTTPS_PROXY"].replace("http:", "ws:")
    async with connect(f"{proxy}/{os.environ['URL']}", proxy=None) as connection:
        await connection.send("hello")
        print(await connection.recv())


asyncio.run(main())
