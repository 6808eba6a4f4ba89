//! That every fault applies to the reference as it is now.

use std::collections::BTreeSet;

use lora_pro_variants::{FAULTS, LOST, SMALL_FAULTS};

#[test]
fn every_edit_is_found() {
    let none: [&str; 0] = [];
    assert_eq!(LOST, none, "the reference's text has changed");
}

/// Names are kebab-case and stand once.
#[test]
fn names_are_unique() {
    let all: Vec<&str> = FAULTS
        .iter()
        .chain(&SMALL_FAULTS)
        .map(|fault| fault.id)
        .collect();
    let unique: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(unique.len(), all.len());
    let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(all.iter().all(|id| id.chars().all(kebab)));
    assert!(FAULTS.len() >= 135);
}
