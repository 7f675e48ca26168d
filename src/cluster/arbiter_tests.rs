//! Each rule of the mediator, named by what it closes, and races in every order.

use std::collections::BTreeSet;

use super::*;

const DATASET: &str = "00112233445566778899aabbccddeeff";
const LATER: Duration = Duration::from_secs(3600);
const RULES: Arbiter = Arbiter { grace: Duration::from_secs(3), keeper: "this mediator" };

fn configuration(id: u64, primary: &str) -> Configuration {
    Configuration { id, members: vec!["alpha".into(), "beta".into()], primary: primary.into(), floor: 0 }
}

fn entry(id: u64, primary: &str) -> Entry {
    Entry { configuration: Some(configuration(id, primary)), nonce: Some(1), locked: None }
}

fn locked(before: Option<Entry>) -> Entry {
    Entry { locked: Some("it is old".into()), ..before.unwrap_or_default() }
}

fn question(node: &str, asked: Asked) -> Question {
    Question { dataset: DATASET.into(), node: node.into(), asked }
}

fn change(node: &str, expected: u64, next: Configuration, nonce: u64) -> Question {
    question(node, Asked::CompareAndSet(Request { expected, next, nonce }))
}

fn read_of(known: u64) -> Question {
    question("alpha", Asked::Read { known })
}

fn seed_of(id: u64) -> Question {
    question("alpha", Asked::Seed(configuration(id, "alpha")))
}

fn code(told: &Told) -> String {
    match told {
        Told::Taken => "taken".into(),
        Told::Holds(found) => format!("holds {}", found.as_ref().map_or(0, |found| found.id)),
        Told::Refused { code, .. } => code.clone(),
    }
}

/// What is answered, and what is written: nothing, a lock or a configuration.
fn told(entry: Option<&Entry>, question: &Question, uptime: Duration) -> String {
    let decision = RULES.decide(entry, 1, question, uptime);
    let written = match &decision.write {
        None => String::new(),
        Some(Entry { locked: Some(_), configuration, .. }) => {
            format!(", locked at {}", configuration.as_ref().map_or(0, |found| found.id))
        }
        Some(written) => format!(", writes {}", id_of(Some(written))),
    };
    code(&decision.told) + &written
}

/// Says what is answered to `question` long after the start, and what is written.
fn late(name: &str, entry: &Option<Entry>, question: Question, expected: &str) {
    assert_eq!(told(entry.as_ref(), &question, LATER), expected, "{name}");
}

/// The same just after the start.
fn early(name: &str, entry: &Option<Entry>, question: Question, expected: &str) {
    assert_eq!(told(entry.as_ref(), &question, Duration::from_secs(1)), expected, "{name}");
}

/// `node` asks to be the primary of the configuration `id` in place of `expected`; by a number of its own.
fn be(node: &str, expected: u64, id: u64) -> Question {
    change(node, expected, configuration(id, node), 2)
}

/// The request that made `entry(7, "alpha")`.
fn again() -> Question {
    change("alpha", 6, configuration(7, "alpha"), 1)
}

#[test]
fn each_rule_of_a_change() {
    let (seven, none) = (Some(entry(7, "alpha")), None);
    late("a first configuration", &none, be("alpha", 0, 1), "taken, writes 1");
    late("a first one may have any id", &none, be("alpha", 0, 9), "taken, writes 9");
    late("the primary changes it", &seven, be("alpha", 7, 8), "taken, writes 8");
    late("the other takes over", &seven, be("beta", 7, 8), "taken, writes 8");
    late("who is late is told what there is", &seven, be("beta", 6, 8), "holds 7");
    late("who knows of none is told what there is", &seven, be("beta", 0, 1), "holds 7");
    late("a lost reply: asked again", &seven, again(), "taken");
    late("the same by another number is another", &seven, be("alpha", 6, 7), "holds 7");
    let other = change("beta", 6, configuration(7, "beta"), 1);
    late("the same number of another request", &seven, other, "holds 7");
    late("an id that does not rise", &seven, be("alpha", 7, 7), "unclear");
    let for_alpha = |expected| change("beta", expected, configuration(expected + 1, "alpha"), 2);
    late("nobody asks for another", &seven, for_alpha(7), "not-yours");
    late("who asks for another locks nothing", &seven, for_alpha(9), "not-yours");
    late("the highest id", &seven, be("alpha", 7, u64::MAX), &format!("taken, writes {}", u64::MAX));
}

#[test]
fn each_rule_of_a_mediator_that_forgot() {
    let (seven, none) = (Some(entry(7, "alpha")), None);
    let (shut, shut_unknown) = (Some(locked(seven.clone())), Some(locked(None)));
    late("an old copy: a change", &seven, be("alpha", 9, 10), "mediator-behind, locked at 7");
    late("lost state: a change", &none, be("alpha", 9, 10), "mediator-behind, locked at 0");
    late("an old copy: a reader", &seven, read_of(8), "mediator-behind, locked at 7");
    late("lost state: a reader", &none, read_of(1), "mediator-behind, locked at 0");
    late("a reader", &seven, read_of(7), "holds 7");
    late("a reader that was away", &seven, read_of(2), "holds 7");
    late("a reader of nothing", &none, read_of(0), "holds 0");
    late("locked: no change", &shut, be("alpha", 7, 8), "locked");
    late("locked: no first one", &shut_unknown, be("alpha", 0, 1), "locked");
    late("locked: who asks again may have been left out since", &shut, again(), "locked");
    late("locked: nobody reads what is old", &shut, read_of(7), "locked");
    late("the operator's word where all is lost", &none, seed_of(9), "taken, writes 9");
    late("the operator's word for a dataset that was lost", &shut_unknown, seed_of(9), "taken, writes 9");
    early("the operator's word for an old copy", &shut, seed_of(9), "taken, writes 9");
    late("the operator's word may be a lower id", &shut, seed_of(3), "taken, writes 3");
    late("no word against what is known", &seven, seed_of(9), "not-locked");
}

#[test]
fn each_rule_of_the_time_after_a_start() {
    let (seven, none) = (Some(entry(7, "alpha")), None);
    early("the other waits", &seven, be("beta", 7, 8), "starting");
    early("the primary does not", &seven, be("alpha", 7, 8), "taken, writes 8");
    early("nor who asks again", &seven, again(), "taken");
    early("nor a first one", &none, be("beta", 0, 1), "taken, writes 1");
    early("a newer one is heard of", &seven, read_of(8), "mediator-behind, locked at 7");
    early("who is late is told", &seven, be("beta", 6, 8), "holds 7");
}

#[test]
fn what_is_no_configuration_is_neither_taken_nor_seeded() {
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let of = |members: &[&str], primary: &str| Configuration {
        id: 8,
        members: members.iter().map(|name| (*name).to_owned()).collect(),
        primary: primary.into(),
        floor: 0,
    };
    for (name, bad) in [
        ("nobody", of(&[], "alpha")),
        ("three", of(&["alpha", "beta", "gamma"], "alpha")),
        ("one twice", of(&["alpha", "alpha"], "alpha")),
        ("a primary from outside", of(&["beta"], "alpha")),
        ("a member without a name", of(&["alpha", ""], "alpha")),
        ("a name too long", of(&["alpha", &long], "alpha")),
        ("the id of none", Configuration { id: 0, ..of(&["alpha"], "alpha") }),
    ] {
        for asked in [
            Asked::CompareAndSet(Request { expected: 0, next: bad.clone(), nonce: 1 }),
            Asked::Seed(bad.clone()),
        ] {
            assert_eq!(told(None, &question("alpha", asked), LATER), "unclear", "{name}");
        }
    }
    for (dataset, node) in [
        ("../../../../../../../etc/passwd00", "alpha"),
        ("00112233445566778899AABBCCDDEEFF", "alpha"),
        ("", "alpha"),
        (DATASET, ""),
        (DATASET, &long),
    ] {
        let asked = Question { dataset: dataset.into(), node: node.into(), asked: Asked::Read { known: 1 } };
        assert_eq!(told(None, &asked, LATER), "unclear", "{dataset:?} {node:?}");
    }
}

#[test]
fn a_refusal_has_the_numbers_and_the_way_out() {
    let text =
        |entry: Option<&Entry>, question: &Question, uptime| match RULES.decide(entry, 1, question, uptime) {
            Decision { told: Told::Refused { text, .. }, .. } => text,
            other => panic!("{other:?}"),
        };
    let seven = entry(7, "alpha");
    let behind = text(Some(&seven), &read_of(9), LATER);
    for part in ["configuration 7", "knows of 9", "mirrorbus seed", DATASET] {
        assert!(behind.contains(part), "{part}: {behind}");
    }
    let shut = RULES.decide(Some(&seven), 1, &read_of(9), LATER).write.unwrap();
    let told = text(Some(&shut), &read_of(9), LATER);
    assert!(told.contains("knows of 9") && told.contains("mirrorbus seed"), "{told}");
    let starting =
        text(Some(&seven), &change("beta", 7, configuration(8, "beta"), 2), Duration::from_millis(2400));
    assert!(starting.contains(" 601 ms"), "{starting}");
}

#[test]
fn a_seed_whose_answer_was_lost_is_taken_once() {
    let seeded = RULES.decide(None, 0, &seed_of(9), LATER).write.unwrap();
    assert_eq!(told(Some(&seeded), &seed_of(9), LATER), "taken");
    assert_eq!(told(Some(&seeded), &seed_of(10), LATER), "not-locked");
    // It is nobody's request: a node that asks for the same by chance is told what there is.
    assert_eq!(told(Some(&seeded), &change("alpha", 8, configuration(9, "alpha"), 0), LATER), "holds 9");
}

#[test]
fn no_more_datasets_than_there_may_be() {
    let first = change("alpha", 0, configuration(1, "alpha"), 2);
    for question in [&first, &read_of(1), &seed_of(1)] {
        let decision = RULES.decide(None, DATASETS_MAX, question, LATER);
        assert_eq!((code(&decision.told).as_str(), decision.write), ("too-many", None));
    }
    assert_eq!(code(&RULES.decide(None, DATASETS_MAX, &read_of(0), LATER).told), "holds 0");
    let next = change("alpha", 7, configuration(8, "alpha"), 2);
    assert_eq!(code(&RULES.decide(Some(&entry(7, "alpha")), DATASETS_MAX, &next, LATER).told), "taken");
}

/// Every order in which the requests of two nodes, each asked up to three times, can come.
#[test]
fn of_two_that_race_exactly_one_is_taken_in_every_order() {
    let mut orders = BTreeSet::new();
    for length in 2..=6_u32 {
        for bits in 0..1_u32 << length {
            let order: Vec<usize> = (0..length).map(|at| (bits >> at & 1) as usize).collect();
            let of_beta = order.iter().sum::<usize>();
            if (1..=3).contains(&of_beta) && (1..=3).contains(&(order.len() - of_beta)) {
                orders.insert(order);
            }
        }
    }
    assert!(orders.len() > 60, "{}", orders.len());
    for before in [None, Some(entry(7, "alpha")), Some(entry(7, "beta"))] {
        let expected = id_of(before.as_ref());
        let asked = [
            change("alpha", expected, configuration(expected + 1, "alpha"), 11),
            change("beta", expected, configuration(expected + 1, "beta"), 12),
        ];
        for order in &orders {
            let mut found = before.clone();
            for &who in order {
                let decision = RULES.decide(found.as_ref(), 1, &asked[who], LATER);
                // Each time the winner is the one that came first.
                let wins = who == order[0];
                assert_eq!(decision.told == Told::Taken, wins, "{order:?} {who}");
                found = decision.write.or(found);
            }
            assert_eq!(id_of(found.as_ref()), expected + 1);
        }
    }
}
