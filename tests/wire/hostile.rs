//! Datagrams that nobody would send in good faith: reading one returns, and leaves nothing behind.

use imgcast_common::{
    prng::Prng,
    wire::{Message, Role},
};

use crate::vector::{Vector, make_crc_right, make_length_right, names};

#[test]
fn a_million_mutated_datagrams_are_read_without_a_panic_or_a_leak() {
    let golden: Vec<_> = names().iter().map(|name| Vector::load(name).octets).collect();
    let mut prng = Prng::new(0x1CA5);
    let mut read = 0u32;
    let mut datagram = Vec::new();
    let before = resident_pages();
    for _ in 0..MUTATIONS {
        datagram.clone_from(&golden[pick(&mut prng, golden.len())]);
        for _ in 0..=prng.below(3) {
            mutate(&mut prng, &mut datagram, &golden);
        }
        if prng.chance(500_000) {
            make_length_right(&mut datagram);
            make_crc_right(&mut datagram);
        }
        for role in [Role::Sender, Role::Receiver] {
            if let Ok((header, message)) = Message::parse(&datagram, role) {
                // What comes through is a message like any other: it can be sent, and read again.
                let again = message.emit(&header, datagram.len());
                assert_eq!(Message::parse(&again, role), Ok((header, message)));
                read += 1;
            }
        }
    }
    let grown = resident_pages().saturating_sub(before);
    assert!(grown < PAGES_GROWN_MAX, "{grown} pages more than before");
    let share = MUTATIONS / 100..MUTATIONS / 2;
    assert!(share.contains(&read), "{read} of {MUTATIONS} came through: the mutations are no use");
}

#[test]
fn random_octets_are_not_a_message() {
    let mut prng = Prng::new(7);
    for len in (0..2000).chain([9_000, 65_535]) {
        let mut octets = vec![0; len];
        prng.fill(&mut octets);
        for role in [Role::Sender, Role::Receiver] {
            assert!(Message::parse(&octets, role).is_err());
        }
    }
}

fn mutate(prng: &mut Prng, datagram: &mut Vec<u8>, golden: &[Vec<u8>]) {
    let at = pick(prng, datagram.len().max(1));
    match prng.below(6) {
        0 => {
            if let Some(octet) = datagram.get_mut(at) {
                *octet ^= 1 << prng.below(8);
            }
        }
        1 => datagram.truncate(at),
        2 => {
            let mut more = vec![0; pick(prng, 40)];
            prng.fill(&mut more);
            datagram.splice(at.min(datagram.len()).., more);
        }
        3 => {
            let other = &golden[pick(prng, golden.len())];
            datagram.truncate(at);
            datagram.extend_from_slice(&other[pick(prng, other.len())..]);
        }
        4 => overwrite(prng, datagram, at),
        _ => {
            // Most fields are in the first octets: padding and symbols would hide them.
            let near = at % 128.min(datagram.len().max(1));
            overwrite(prng, datagram, near);
        }
    }
}

/// Puts a number of 1, 2, 4 or 8 octets there, an extreme one half of the times.
fn overwrite(prng: &mut Prng, datagram: &mut [u8], at: usize) {
    let len = 1 << prng.below(4);
    let extremes = [0, 1, u64::MAX, 1 << 63, 0x7fff_ffff_ffff_ffff, 0xffff_ffff];
    let value =
        if prng.chance(500_000) { extremes[pick(prng, extremes.len())] } else { prng.bits() };
    let octets = value.to_be_bytes();
    for (octet, new) in datagram.iter_mut().skip(at).zip(&octets[8 - len..]) {
        *octet = *new;
    }
}

fn pick(prng: &mut Prng, end: usize) -> usize {
    usize::try_from(prng.below(end as u64)).unwrap()
}

/// Pages of this process that are in memory; proc(5), statm.
fn resident_pages() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

const MUTATIONS: u32 = 1_000_000;
/// 32 MiB, for the tests that run beside this one: a leak of 33 octets a datagram shows.
const PAGES_GROWN_MAX: u64 = 8_192;
