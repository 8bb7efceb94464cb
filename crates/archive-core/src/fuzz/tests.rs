//! The targets on their seeds, whole and damaged: what `make fuzz` does for longer.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{TARGETS, seeds};
use std::sync::LazyLock;

static SEEDS: LazyLock<Vec<Vec<Vec<u8>>>> = LazyLock::new(|| TARGETS.iter().map(|(name, _)| seeds(name)).collect());

#[test]
fn the_seeds_are_taken() {
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name}");
        seeds.iter().for_each(|seed| run(seed));
    }
    let manifest = String::from_utf8(seeds("manifest").remove(0)).unwrap();
    assert!(crate::manifest::Manifest::from_json(&manifest).is_ok());
    for (format, object) in
        crate::codec::ObjectFormat::ALL.into_iter().zip(seeds("decoder").into_iter().skip(2).step_by(3))
    {
        let options = crate::codec::ScanOptions { columns: (1..=11).collect(), ..Default::default() };
        assert_eq!(super::scan(&object.into(), format, &super::schema(), options).unwrap(), 40);
    }
}

/// Bytes changed, taken out, put in, doubled, cut off.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Remove(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Double(prop::sample::Index, u8),
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => (any::<prop::sample::Index>(), 1u8..=255).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        2 => (any::<prop::sample::Index>(), 1u8..=9).prop_map(|(at, length)| Damage::Remove(at, length)),
        2 => (any::<prop::sample::Index>(), vec(any::<u8>(), 1..5)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<prop::sample::Index>(), 1u8..=30).prop_map(|(at, length)| Damage::Double(at, length)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
    ]
}

fn spoil(bytes: &mut Vec<u8>, damage: &Damage) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    match damage {
        Damage::Flip(at, mask) => bytes[at.index(length)] ^= mask,
        Damage::Remove(at, count) => {
            drop(bytes.drain(at.index(length)..(at.index(length) + usize::from(*count)).min(length)))
        }
        Damage::Insert(at, more) => drop(bytes.splice(at.index(length)..at.index(length), more.iter().copied())),
        Damage::Double(at, count) => {
            let again = bytes[at.index(length)..(at.index(length) + usize::from(*count)).min(length)].to_vec();
            bytes.splice(at.index(length)..at.index(length), again);
        }
        Damage::Cut(at) => bytes.truncate(at.index(length)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 }))]

    #[test]
    fn damaged_seeds_give_errors_or_answers(
        which in any::<prop::sample::Index>(),
        damages in vec(damage(), 1..5),
    ) {
        for ((_, run), seeds) in TARGETS.iter().zip(SEEDS.iter()) {
            let mut bytes = seeds[which.index(seeds.len())].clone();
            damages.iter().for_each(|damage| spoil(&mut bytes, damage));
            run(&bytes);
        }
    }
}
