//! Questions to a mediator, as a node may send them, and its answers as a mediator may.
//!
//! The first byte chooses. *Raw*: the rest is a question, and an answer. *Built*: the rest makes a sequence of questions about two datasets. Whatever
//! is decoded survives encoding; whatever is asked, the id of a register rises, unless an operator gives one to a register that is locked, and
//! what is taken was asked for by its primary. Executions in which a question was decided are counted and printed at each power of two.
#![no_main]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mirrorbus::cluster::{
    Arbiter, Asked, Configuration, Entry, Question, Request, Told, decode, encode, is_dataset,
};

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let mut registers = BTreeMap::new();
    let is_deep = if mode % 4 == 0 {
        raw(data, &mut registers)
    } else {
        let steps = data.chunks_exact(8).take(64);
        steps.fold(false, |any, step| {
            let question = built(step);
            let question = decode(&encode(&question)).expect("it was just made");
            ask(&mut registers, &question, Duration::from_millis(u64::from(step[7]) * 20)) || any
        })
    };
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let deep = DEEP.fetch_add(u64::from(is_deep), Ordering::Relaxed) + u64::from(is_deep);
    if executions.is_power_of_two() {
        eprintln!("deep: {deep} of {executions} (executions with a question that was decided)");
    }
});

/// Lines of JSON behind the magic, or whole messages.
fn raw(data: &[u8], registers: &mut BTreeMap<String, Entry>) -> bool {
    let mut any = false;
    for line in data.split(|byte| *byte == b'\n') {
        let message = [b"MBMEDI01", line].concat();
        for bytes in [line, &message] {
            if let Ok(told) = decode::<Told>(bytes) {
                assert_eq!(decode(&encode(&told)), Ok(told));
            }
            if let Ok(question) = decode::<Question>(bytes) {
                assert_eq!(decode(&encode(&question)), Ok(question.clone()));
                any |= ask(registers, &question, Duration::from_secs(9));
            }
        }
    }
    any
}

fn built(step: &[u8]) -> Question {
    let nodes = ["alpha", "beta", "", "gamma"];
    let node = |bits: u8| nodes[usize::from(bits % 4)].to_owned();
    let number = |byte: u8| if byte == 255 { u64::MAX } else { u64::from(byte % 8) };
    let members = (0..step[3] % 4).map(|at| node(step[2] >> (2 * at))).collect();
    let configuration =
        Configuration { id: number(step[4]), members, primary: node(step[5]), floor: u64::from(step[6]) };
    let asked = match step[0] % 4 {
        0 => Asked::Read { known: number(step[1]) },
        1 => Asked::Seed(configuration),
        _ => Asked::CompareAndSet(Request {
            expected: number(step[1]),
            next: configuration,
            nonce: u64::from(step[6] % 4),
        }),
    };
    let dataset = format!("{:032x}", step[0] >> 7);
    Question { dataset, node: node(step[5] >> (2 * (step[0] >> 6 & 1))), asked }
}

/// Whether it was decided: neither is it unclear nor does it go without an answer.
fn ask(registers: &mut BTreeMap<String, Entry>, question: &Question, uptime: Duration) -> bool {
    let before = registers.get(&question.dataset).cloned();
    let id = |entry: &Option<Entry>| {
        entry.as_ref().and_then(|entry| entry.configuration.as_ref()).map_or(0, |found| found.id)
    };
    let rules = Arbiter::new(Duration::from_secs(1));
    let decision = rules.decide(before.as_ref(), registers.len(), question, uptime);
    if let Told::Refused { code, text } = &decision.told {
        assert!(!code.is_empty() && !text.is_empty());
        if code == "unclear" {
            assert_eq!(decision.write, None);
            return false;
        }
    }
    assert!(is_dataset(&question.dataset) && encode(&decision.told).len() <= 56 << 10);
    let was_locked = before.as_ref().is_none_or(|entry| entry.locked.is_some());
    let after = decision.write.clone().map_or(before.clone(), Some);
    match &question.asked {
        Asked::Read { known } => {
            assert!(decision.told != Told::Taken && id(&before) == id(&after));
            assert!(
                was_locked
                    || *known <= id(&before)
                    || after.as_ref().is_some_and(|entry| entry.locked.is_some())
            );
        }
        Asked::CompareAndSet(request) => {
            assert!(id(&after) >= id(&before));
            if decision.told == Told::Taken {
                let found = after.as_ref().expect("it was taken");
                assert!(found.configuration.as_ref() == Some(&request.next) && found.locked.is_none());
                assert_eq!(request.next.primary, question.node);
            }
            if decision.write.is_some() && decision.told == Told::Taken {
                assert!(id(&before) == request.expected && id(&after) > id(&before));
            }
        }
        Asked::Seed(_) => assert!(was_locked || id(&before) == id(&after)),
    }
    if let Some(entry) = decision.write {
        registers.insert(question.dataset.clone(), entry);
    }
    true
}
