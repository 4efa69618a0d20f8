use std::io::{Read, Write};

fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").unwrap_or_default();
    let listener = std::net::TcpListener::bind(format!("0.0.0.0:{port}"))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let _ = stream.read(&mut [0; 1024])?;
        let body = format!("rust {}\n", itoa::Buffer::new().format(42));
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}
