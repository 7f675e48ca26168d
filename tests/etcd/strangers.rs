//! What answers is no etcd, or what is kept there is no register.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mirrorbus::cluster::{ArbiterClient, ArbiterError, Verdict};

use crate::{
    AT_ONCE, DATASET, PATIENCE, PREFIX, Rig, assert_in_time, change, client_of, configuration, refusal, take,
};

/// What etcd 3.4 says of a key that is not there.
const NOTHING: &str = r#"{"header":{"cluster_id":"1","member_id":"2","revision":"3","raft_term":"4"}}"#;

/// A server that says to each request what it is told to say, and hangs up; the bytes are sent as they are.
fn server(says: impl Fn(&[u8], &mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            says(&bytes[..count], &mut stream);
        }
    });
    url
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Answers to a read that are none: a sentence, in time, and nothing was asked for.
#[test]
fn a_server_that_is_no_etcd_is_told_as_such() {
    let within = Duration::from_millis(500);
    let long = format!("{{\"header\":\"{}\"}}", "x".repeat(1 << 20));
    let deep = "[".repeat(50_000);
    let headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(100_000)).into_bytes();
    for answer in [
        Vec::new(),
        b"\0\xff\x16\x03\x01".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"header\":".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
            .to_vec(),
        b"HTTP/9.9 777 ?\r\n\r\n".to_vec(),
        headers,
        http("200 OK", ""),
        http("200 OK", "{}"),
        http("200 OK", "<html>welcome</html>"),
        http("200 OK", &long),
        http("200 OK", &deep),
        http("204 No Content", ""),
        http("404 Not Found", "404 page not found"),
        http("502 Bad Gateway", "<html>"),
        http("503 Service Unavailable", r#"{"error":"etcdserver: no leader","code":14}"#),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        let url = server(move |_, stream| drop(stream.write_all(&answer)));
        let mut alpha = client_of(std::slice::from_ref(&url), "alpha", AT_ONCE);
        let began = Instant::now();
        match alpha.compare_and_set(&change(0, "alpha"), within) {
            Err(ArbiterError::NotSent(why)) => {
                assert!(why.contains(&url) && why.len() < 1000, "{shown}: {why}")
            }
            other => panic!("{shown}: {other:?}"),
        }
        assert_in_time(began, within);
    }
}

#[test]
fn one_that_does_not_come_to_an_end_is_not_waited_for() {
    let within = Duration::from_millis(500);
    let url = server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut alpha = client_of(&[url], "alpha", AT_ONCE);
    let began = Instant::now();
    assert!(matches!(alpha.read(0, within), Err(ArbiterError::NotSent(_))));
    assert_in_time(began, within);
}

/// Behind a read that was sound: what may have been done is told as that, and what was not is not.
#[test]
fn an_answer_to_a_change_that_is_none_leaves_it_unknown() {
    let within = PATIENCE;
    let unavailable =
        r#"{"error":"etcdserver: request timed out","message":"etcdserver: request timed out","code":14}"#;
    let no_space = r#"{"error":"etcdserver: mvcc: database space exceeded","code":8}"#;
    let denied = r#"{"error":"etcdserver: permission denied","code":7}"#;
    for (answer, is_unknown) in [
        (Vec::new(), true),
        (http("200 OK", "{}"), true),
        (http("200 OK", r#"{"succeeded":true}"#), true),
        (http("502 Bad Gateway", "<html>"), true),
        (http("503 Service Unavailable", unavailable), true),
        // Said behind the write that took the last room, too.
        (http("429 Too Many Requests", no_space), true),
        (http("403 Forbidden", denied), false),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let url = server(move |request, stream| {
            let is_read = request.starts_with(b"POST /v3/kv/range");
            let _ = stream.write_all(&if is_read { http("200 OK", NOTHING) } else { answer.clone() });
        });
        let told =
            client_of(&[url], "alpha", AT_ONCE).compare_and_set(&change(0, "alpha"), within).unwrap_err();
        match told {
            ArbiterError::Unknown(_) => assert!(is_unknown, "{shown}"),
            ArbiterError::Refused { code, text } => {
                assert!(
                    !is_unknown && code == "etcd" && text.contains("permission denied"),
                    "{shown}: {text}"
                );
            }
            other => panic!("{shown}: {other}"),
        }
    }
}

/// Somebody else always writes in between: it is given up.
#[test]
fn a_race_that_is_lost_again_and_again_is_given_up() {
    let url = server(|_, stream| drop(stream.write_all(&http("200 OK", NOTHING))));
    let mut alpha = client_of(&[url], "alpha", AT_ONCE);
    let told = alpha.compare_and_set(&change(0, "alpha"), PATIENCE);
    assert!(matches!(told, Err(ArbiterError::Unknown(_))), "{told:?}");
}

/// What `printf %s TEXT | base64` says.
fn base64(text: &str) -> String {
    let script = format!("printf %s '{text}' | base64 -w0");
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_no_register_is_told_by_its_key_and_the_way_out_works() {
    let rig = Rig::started();
    let key = format!("{PREFIX}{DATASET}");
    let encoded = base64(&key);
    assert_eq!(take(&mut rig.client("alpha"), &change(0, "alpha")), Verdict::Taken);
    for value in ["hello", "{}", ""] {
        let put = format!("{{\"key\":\"{encoded}\",\"value\":\"{}\"}}", base64(value));
        assert!(rig.etcd.post("/v3/kv/put", &put).starts_with("HTTP/1.1 200"));
        for (code, text) in [
            refusal(rig.client("alpha").read(1, PATIENCE)),
            refusal(rig.client("alpha").compare_and_set(&change(1, "alpha"), PATIENCE)),
            refusal(rig.client("alpha").seed(&configuration(1, "alpha"), PATIENCE)),
        ] {
            assert!(code == "damaged" && text.contains(&format!("etcdctl del {key}")), "{code}: {text}");
        }
        // As etcdctl does.
        rig.etcd.post("/v3/kv/deleterange", &format!("{{\"key\":\"{encoded}\"}}"));
        rig.client("alpha").seed(&configuration(1, "alpha"), PATIENCE).unwrap();
        assert_eq!(take(&mut rig.client("alpha"), &change(1, "alpha")), Verdict::Taken);
    }
}
