require "sinatra"

get("/") { "ruby #{Sinatra.name}\n" }

run Sinatra::Application
