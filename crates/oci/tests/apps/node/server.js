const http = require("http");
const isOdd = require("is-odd");

http.createServer((request, response) => response.end(`node ${isOdd(3)}\n`)).listen(process.env.PORT);
