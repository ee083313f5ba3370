import { readFileSync } from "node:fs";
import { get } from "node:https";
import { HttpsProxyAgent } from "https-proxy-agent";

const agent = new HttpsProxyAgent(process.env.HTTPS_PROXY);
const ca = readFileSync(process.env.CA_FILE);
get(process.env.URL, { agent, ca }, async (answer) => {
  const pieces = await answer.setEncoding("utf8").toArray();
  console.log(answer.statusCode, pieces.join(""));
});
