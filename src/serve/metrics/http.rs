//! As much of HTTP/1.1 as answering a GET takes: RFC 9112.

use super::CONTENT_TYPE;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The metrics; `false` where only the head of the answer is wanted.
    Metrics { with_body: bool },
    /// Nothing that is here.
    Other(Refusal),
}

/// Why there is no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    BadRequest,
    NotFound,
    MethodNotAllowed,
    HeadTooLong,
    Unavailable,
    Busy,
}

/// What the first line of a request asks for.
pub(super) fn wanted(line: &[u8]) -> Wanted {
    let Ok(line) = std::str::from_utf8(line) else { return Wanted::Other(Refusal::BadRequest) };
    let mut words = line.trim_end_matches('\r').split(' ');
    let (method, target, version, rest) = (words.next(), words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, rest) else {
        return Wanted::Other(Refusal::BadRequest);
    };
    if !version.starts_with("HTTP/1.") || !(target.starts_with('/') || target.starts_with("http://")) {
        return Wanted::Other(Refusal::BadRequest);
    }
    // The whole URL is what a proxy is asked for, and means the same.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => Wanted::Metrics { with_body: true },
        ("HEAD", "/metrics") => Wanted::Metrics { with_body: false },
        ("GET" | "HEAD", _) => Wanted::Other(Refusal::NotFound),
        _ => Wanted::Other(Refusal::MethodNotAllowed),
    }
}

/// The answer with a page.
pub(super) fn page(body: &str, with_body: bool) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), if with_body { body.as_bytes() } else { b"" }].concat()
}

/// The answer without one, with a line that says why.
pub(super) fn refusal(refusal: Refusal, why: &str) -> Vec<u8> {
    let status = match refusal {
        Refusal::BadRequest => "400 Bad Request",
        Refusal::NotFound => "404 Not Found",
        Refusal::MethodNotAllowed => "405 Method Not Allowed\r\nAllow: GET, HEAD",
        Refusal::HeadTooLong => "431 Request Header Fields Too Large",
        Refusal::Unavailable | Refusal::Busy => "503 Service Unavailable\r\nRetry-After: 1",
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{why}\n",
        why.len() + 1
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let other = Wanted::Other;
        for (line, expected) in [
            ("GET /metrics HTTP/1.1\r", Wanted::Metrics { with_body: true }),
            ("GET /metrics?x=1 HTTP/1.0", Wanted::Metrics { with_body: true }),
            ("GET http://alpha:9300/metrics HTTP/1.1", Wanted::Metrics { with_body: true }),
            ("HEAD /metrics HTTP/1.1", Wanted::Metrics { with_body: false }),
            ("GET / HTTP/1.1", other(Refusal::NotFound)),
            ("GET /metrics/ HTTP/1.1", other(Refusal::NotFound)),
            ("GET http://alpha HTTP/1.1", other(Refusal::NotFound)),
            ("POST /metrics HTTP/1.1", other(Refusal::MethodNotAllowed)),
            ("get /metrics HTTP/1.1", other(Refusal::MethodNotAllowed)),
            ("GET /metrics", other(Refusal::BadRequest)),
            ("GET  /metrics HTTP/1.1", other(Refusal::BadRequest)),
            ("GET /metrics HTTP/2", other(Refusal::BadRequest)),
            ("GET metrics HTTP/1.1", other(Refusal::BadRequest)),
            ("", other(Refusal::BadRequest)),
        ] {
            assert_eq!(wanted(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(wanted(b"GET /\xff HTTP/1.1"), other(Refusal::BadRequest));
    }
}
