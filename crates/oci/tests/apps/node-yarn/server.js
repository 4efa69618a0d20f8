const { readFileSync } = require("fs");
const ms = require("ms");

// What the build made with a dependency of development, which is not there when the application runs.
const made = readFileSync("made.txt", "utf8").trim();
let semver = "semver";
try {
  // Debian's npm has one of its own, which is none of the application's.
  if (require.resolve("semver").startsWith("/usr/")) semver = "no semver";
} catch {
  semver = "no semver";
}
require("http")
  .createServer((_, response) => response.end(`${ms(60000)} ${made} ${semver}\n`))
  .listen(process.env.PORT);
