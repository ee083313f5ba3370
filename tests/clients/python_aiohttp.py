import asyncio
import os
import ssl

import aiohttp


async def main() -> None:
    tls = ssl.create_default_context(cafile=os.environ["CA_FILE"])
    async with (
        aiohttp.ClientSession() as session,
        session.get(os.environ["URL"], proxy=os.environ["HTTPS_PROXY"], ssl=tls) as answer,
    ):
        print(answer.status, await answer.text())


asyncio.run(main())
