import { readFileSync } from "node:fs";
import { ProxyAgent, fetch } from "undici";

const dispatcher = new ProxyAgent({
  uri: process.env.HTTPS_PROXY,
  requestTls: { ca: readFileSync(process.env.CA_FILE) },
});
const answer = await fetch(process.env.URL, { dispatcher });
console.log(answer.status, await answer.text());
