//! Requests over a real connection, right and wrong ones.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CONNECTIONS_MAX, HEAD_BYTES_MAX, MetricsServer, format_tests};
use crate::serve::admin::StatusSource;
use crate::serve::admin::testing::TestSubject;

fn serve() -> (Arc<TestSubject>, MetricsServer) {
    let subject = Arc::new(TestSubject::default());
    let status = StatusSource::start(subject.clone()).unwrap();
    (subject, MetricsServer::start("127.0.0.1:0".parse().unwrap(), status).unwrap())
}

fn connect(server: &MetricsServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn ask(server: &MetricsServer, request: &[u8]) -> String {
    let mut stream = connect(server);
    // A server that has had enough does not read to the end.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn metrics_are_a_page_of_its_stated_length() {
    let (_subject, server) = serve();
    let answer = ask(&server, b"GET /metrics HTTP/1.1\r\nHost: alpha\r\nAccept: */*\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let read = format_tests::read(body).unwrap();
    assert!(read.kinds.len() > 20);
    let answer = ask(&server, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\n") && answer.contains("Content-Length: "), "{answer}");
}

#[test]
fn other_requests_are_told_what_they_are() {
    let (_subject, server) = serve();
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("nonsense\r\n\r\n", "400"),
        (&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_BYTES_MAX)), "431"),
        (&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEAD_BYTES_MAX / 5)), "431"),
    ] {
        let answer = ask(&server, request.as_bytes());
        // A head that is far too long may be answered by a reset.
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) || answer.is_empty() && status == "431",
            "{answer}"
        );
    }
    assert!(ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n").contains(" 200 "));
}

#[test]
fn those_who_stall_are_few_and_given_up() {
    let (_subject, server) = serve();
    let stalled: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|number| {
            let mut stream = connect(&server);
            stream.write_all(&b"GET /metrics HTTP/1.1\r\n"[..number]).unwrap();
            stream
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(20);
    let mut was_turned_away = false;
    loop {
        let answer = ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n");
        if answer.contains(" 200 ") && was_turned_away {
            break;
        }
        was_turned_away |= answer.contains(" 503 ");
        assert!(Instant::now() < until, "turned away: {was_turned_away}");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(stalled);
}

#[test]
fn a_node_that_hangs_is_told_as_such() {
    let (subject, server) = serve();
    let held = subject.hang();
    assert!(ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n").contains(" 503 "));
    drop(held);
    let until = Instant::now() + Duration::from_secs(20);
    while !ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n").contains("mirrorbus_status_age_seconds 0\n") {
        assert!(Instant::now() < until, "no status is told");
    }
    let held = subject.hang();
    let answer = ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.contains(" 200 ") && !answer.contains("mirrorbus_status_age_seconds 0\n"), "{answer}");
    drop(held);
}
