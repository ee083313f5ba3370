// Prints the status of a URL.
import https from "node:https";

https
  .get(process.argv[2], (response) => {
    console.log(response.statusCode);
    response.resume();
  })
  .on("error", (error) => {
    console.log(error.code);
    process.exit(1);
  });
