//! What is chosen, and how often it runs.

use super::*;

#[test]
fn tests_are_chosen_by_name() {
    assert_eq!(choose(&[], true).unwrap().len(), CASES.len() - BY_NAME.len());
    assert_eq!(choose(&[], false).unwrap().len(), CASES.len() - BY_NAME.len() - 1);
    let chosen = choose(&["cut".to_owned(), "bring-up".to_owned()], false).unwrap();
    assert_eq!(chosen.iter().map(|case| case.name).collect::<Vec<_>>(), ["cut", "bring-up"]);
    assert!(
        choose(&[PERFTEST[0].to_owned()], true).is_ok() && choose(&[PERFTEST[0].to_owned()], false).is_err()
    );
    let failure = choose(&["cuts".to_owned()], true).unwrap_err().to_string();
    assert!(failure.contains("cuts") && failure.contains("bring-up"), "{failure}");
}

#[test]
fn what_is_long_runs_less_often_among_all() {
    for (name, times) in [
        ("boot", [1, 1]),
        ("cut", [4, 4]),
        ("resync", [2, 4]),
        ("reconnects", [2, 4]),
        ("failover", [2, 4]),
        ("power-unsynced", [0, 1]),
        ("cut-tcp", [0, 1]),
        ("owner-power-tcp", [1, 1]),
    ] {
        let case = choose(&[name.to_owned()], false).unwrap()[0];
        assert_eq!([false, true].map(|by_name| case.times(4, by_name)), times, "{name}");
        assert!(case.times(MANY, false) > 0, "{name}");
    }
}

#[test]
fn a_measurement_runs_alone() {
    let is = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        is_measurement(&choose(&names, false).unwrap())
    };
    assert!(is(&["resync-latency"]).unwrap() && !is(&["cut", "resync"]).unwrap());
    assert!(is(&["cut", "resync-latency"]).is_err());
}

#[test]
fn names_differ() {
    let names: std::collections::BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), CASES.len());
}
