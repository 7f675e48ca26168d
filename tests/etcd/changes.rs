//! What is taken and what is not.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use mirrorbus::base::DatasetId;
use mirrorbus::cluster::{ArbiterClient, ArbiterError, Request, Verdict};
use mirrorbus::etcd::{Client, Gateway};

use crate::proxy::{Changes, Proxy};
use crate::{
    AT_ONCE, PATIENCE, Rig, assert_in_time, change, client_of, config, configuration, refusal, take,
};

#[test]
fn who_comes_first_is_taken_and_the_other_is_told_whom_to_follow() {
    let rig = Rig::started();
    let (mut alpha, mut beta) = (rig.client("alpha"), rig.client("beta"));
    assert_eq!(alpha.read(0, PATIENCE).unwrap(), None);
    assert_eq!(take(&mut alpha, &change(0, "alpha")), Verdict::Taken);
    assert_eq!(take(&mut beta, &change(0, "beta")), Verdict::Changed(Some(configuration(1, "alpha"))));
    assert_eq!(beta.read(0, PATIENCE).unwrap(), Some(configuration(1, "alpha")));
    assert_eq!(take(&mut beta, &change(1, "beta")), Verdict::Taken);
    assert_eq!(take(&mut alpha, &change(1, "alpha")), Verdict::Changed(Some(configuration(2, "beta"))));
    let (code, _) = refusal(alpha.compare_and_set(&change(2, "beta"), PATIENCE));
    assert_eq!(code, "not-yours");
    // Another dataset knows nothing of it, nor does another prefix.
    let gateway = Gateway::open(&config(&[rig.etcd.url()])).unwrap();
    let mut other = Client::new(gateway, DatasetId::from_bytes([1; 16]), "alpha", AT_ONCE);
    assert_eq!(other.read(0, PATIENCE).unwrap(), None);
}

#[test]
fn many_race_and_one_wins_each_round() {
    let rig = Rig::started();
    for expected in 0..8 {
        let taken: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = ["alpha", "beta"]
                .into_iter()
                .cycle()
                .take(6)
                .zip(0..)
                .map(|(node, number)| {
                    let (mut client, mut again) = (rig.client(node), rig.client(node));
                    let request = Request { nonce: number, ..change(expected, node) };
                    scope.spawn(move || {
                        let is_taken = take(&mut client, &request) == Verdict::Taken;
                        // The verdict is for good.
                        assert_eq!(take(&mut again, &request) == Verdict::Taken, is_taken);
                        usize::from(is_taken)
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(taken, 1, "round {expected}");
    }
}

fn assert_unknown(asked: Result<Verdict, ArbiterError>) {
    assert!(matches!(asked, Err(ArbiterError::Unknown(_))), "{asked:?}");
}

/// It is not asked elsewhere as though it were new, and asked again it is the same.
#[test]
fn a_request_whose_answer_was_lost_is_taken_once() {
    let rig = Rig::started();
    let proxy = Proxy::start(&rig.etcd.address);
    proxy.set(Changes::LoseTheirAnswers);
    let mut alpha = client_of(&[proxy.url(), rig.etcd.url()], "alpha", AT_ONCE);
    let first = change(0, "alpha");
    assert_unknown(alpha.compare_and_set(&first, PATIENCE));
    assert_eq!(rig.id(), 1, "it was carried out all the same");
    assert_eq!(take(&mut alpha, &first), Verdict::Taken);
    assert_eq!(take(&mut alpha, &change(1, "alpha")), Verdict::Taken);
    assert_eq!(take(&mut alpha, &first), Verdict::Changed(Some(configuration(2, "alpha"))));
    // And a seed.
    let mut alone = client_of(&[proxy.url()], "alpha", AT_ONCE);
    assert_eq!(refusal(alone.seed(&configuration(2, "alpha"), PATIENCE)).0, "not-locked");
}

#[test]
fn a_request_that_comes_late_is_void_when_it_was_asked_again_or_another_was_taken() {
    let rig = Rig::started();
    let proxy = Proxy::start(&rig.etcd.address);
    let mut alpha = client_of(&[proxy.url()], "alpha", AT_ONCE);
    let assert_void = |let_go: Vec<String>| {
        assert_eq!(let_go.len(), 1);
        assert!(let_go[0].starts_with("HTTP/1.1 200") && !let_go[0].contains("succeeded"), "{let_go:?}");
    };
    // Asked again meanwhile.
    proxy.set(Changes::AreKept);
    assert_unknown(alpha.compare_and_set(&change(0, "alpha"), PATIENCE));
    assert_eq!(rig.id(), 0);
    proxy.set(Changes::GoThrough);
    assert_eq!(take(&mut alpha, &change(0, "alpha")), Verdict::Taken);
    assert_void(proxy.let_go());
    assert_eq!(rig.id(), 1);
    // Another one was taken meanwhile.
    proxy.set(Changes::AreKept);
    assert_unknown(alpha.compare_and_set(&change(1, "alpha"), PATIENCE));
    assert_eq!(take(&mut rig.client("beta"), &change(1, "beta")), Verdict::Taken);
    let verdict = Verdict::Changed(Some(configuration(2, "beta")));
    assert_eq!(take(&mut alpha, &change(1, "alpha")), verdict);
    assert_void(proxy.let_go());
    assert_eq!(take(&mut alpha, &change(1, "alpha")), verdict);
    // Nothing happened meanwhile: it is taken late, and whoever asks again is told so.
    let mut beta = client_of(&[proxy.url()], "beta", AT_ONCE);
    assert_unknown(beta.compare_and_set(&change(2, "beta"), PATIENCE));
    assert!(proxy.let_go()[0].contains("\"succeeded\":true"));
    assert_eq!(take(&mut beta, &change(2, "beta")), Verdict::Taken);
}

#[test]
fn of_several_endpoints_one_that_answers_is_enough() {
    let rig = Rig::started();
    // One that says nothing, and one where nobody is.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let nobody = "http://127.0.0.1:1".to_owned();
    let within = Duration::from_secs(20);
    let mut alpha = client_of(&[nobody.clone(), silent_url.clone(), rig.etcd.url()], "alpha", AT_ONCE);
    let began = Instant::now();
    assert_eq!(alpha.compare_and_set(&change(0, "alpha"), within).unwrap(), Verdict::Taken);
    assert!(began.elapsed() < within, "{:?}", began.elapsed());
    // The one that answered is asked first from now on.
    let began = Instant::now();
    assert_eq!(alpha.read(1, within).unwrap(), Some(configuration(1, "alpha")));
    assert!(began.elapsed() < within / 3, "{:?}", began.elapsed());
    let (began, within) = (Instant::now(), Duration::from_secs(1));
    let mut alpha = client_of(&[nobody, silent_url], "alpha", AT_ONCE);
    match alpha.compare_and_set(&change(1, "alpha"), within).unwrap_err() {
        ArbiterError::NotSent(why) => assert!(why.contains("refused") && why.contains("timeout"), "{why}"),
        other => panic!("{other}"),
    }
    assert_in_time(began, within);
}
