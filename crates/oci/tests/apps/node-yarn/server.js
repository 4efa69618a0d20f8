const { readFileSync } = require("fs");
const ms = require("ms");

// What the build made with a dependency of development, which is not there when the application runs.
const made = readFileSync("made.txt", "utf8").trim();
let semver = "semver";
try {
  require.resolve("semver");
} catch {
  semver = "no semver";
}
require("http")
  .createServer((_, response) => response.end(`${ms(60000)} ${made} ${semver}\n`))
  .listen(process.env.PORT);
