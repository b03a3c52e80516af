//! A raw splice for comparison: passes bytes between a TCP port and a Unix socket, two threads a connection.
//!
//! `splice SOCKET` prints its port and serves until it is killed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

fn main() {
    let socket = std::env::args().nth(1).expect("the path of a socket");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("it is bound").port());
    for client in listener.incoming().flatten() {
        let Ok(server) = UnixStream::connect(&socket) else { continue };
        client.set_nodelay(true).expect("a TCP stream");
        let (from, to) = (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
        thread::spawn(move || {
            pass(&from, &to);
            let _ = to.shutdown(Shutdown::Write);
        });
        thread::spawn(move || {
            pass(&server, &client);
            let _ = TcpStream::shutdown(&client, Shutdown::Write);
        });
    }
}

fn pass(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
