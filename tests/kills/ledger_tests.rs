//! The judge is judged: copies that break the prefix rule must not pass.

use crate::ledger::{Store, Stores, find_prefix};

const SIZE: usize = 1 << 16;

fn stores(count: usize) -> Vec<Store> {
    Stores::new(99, 0, SIZE, (8, 3000)).take(count).collect()
}

/// The copy after `stores` without the one at index `without`.
fn copy(stores: &[Store], without: usize) -> Vec<u8> {
    let mut copy = vec![0; SIZE];
    for (_, store) in stores.iter().enumerate().filter(|(index, _)| *index != without) {
        store.apply(&mut copy);
    }
    copy
}

fn judge(copy: &[u8], stores: &[Store], acked: u64) -> Result<u64, String> {
    find_prefix(copy, &mut vec![0; SIZE], 0..SIZE, stores.iter().cloned(), acked)
}

#[test]
fn a_prefix_passes_and_is_found() {
    let stores = stores(60);
    for count in 20..=60 {
        let found = judge(&copy(&stores[..count], usize::MAX), &stores, 20).unwrap();
        // A whole store behind the prefix is a torn one of which every part is there.
        assert!(found == count as u64 || found + 1 == count as u64, "{found} of {count}");
    }
}

#[test]
fn a_missing_store_in_the_middle_is_found() {
    let stores = stores(60);
    let mut found = 0;
    for missing in 10..50 {
        let mut later = vec![false; SIZE];
        for store in &stores[missing + 1..] {
            later[store.offset..store.offset + store.bytes.len()].fill(true);
        }
        let gone = &stores[missing];
        // One that later stores cover completely cannot be missed by anybody.
        if later[gone.offset..gone.offset + gone.bytes.len()].iter().all(|covered| *covered) {
            continue;
        }
        found += 1;
        judge(&copy(&stores, missing), &stores, 10).expect_err("a store is missing");
        judge(&copy(&stores, missing), &stores, 60).expect_err("an acknowledged store is missing");
    }
    assert!(found >= 10, "only {found} of the stores leave a trace");
}

#[test]
fn too_short_a_prefix_is_found() {
    let stores = stores(40);
    let error = judge(&copy(&stores[..20], usize::MAX), &stores, 25).unwrap_err();
    assert!(error.contains("the 25 acknowledged ones"), "{error}");
}

#[test]
fn a_torn_store_passes_only_with_its_own_bytes() {
    let stores = stores(31);
    let torn = &stores[30];
    let half = torn.bytes.len() / 2;
    let mut copy = copy(&stores[..30], usize::MAX);
    let (old, new) = (copy[torn.offset], torn.bytes[0]);
    copy[torn.offset..torn.offset + half].copy_from_slice(&torn.bytes[..half]);
    assert_eq!(judge(&copy, &stores, 30), Ok(30));
    copy[torn.offset] = (0..=255).find(|byte| *byte != old && *byte != new).unwrap();
    judge(&copy, &stores, 30).expect_err("a byte is of neither store");
}
