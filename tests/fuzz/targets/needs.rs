//! Lists of needs, honest in form and senseless in content: what nobody asked for is not sent, and
//! nothing is sent more often than it was asked for.
//!
//! Three receivers that have verified something join, so that the image is owed to nobody; then
//! come NEEDs.

use std::{collections::BTreeMap, time::Duration};

use imgcast_common::{
    id::{ReceiverId, Stream},
    wire::{Message, WHOLE},
};

use super::{
    input::{Input, host},
    messages::assert_is_list,
    sender::Table,
};

pub(super) fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let mut table = Table::new(&mut input, true);
    for number in [0, 2, 4] {
        table.join(number, true, false);
    }
    table.pass(Duration::from_secs(1), 0);
    let mut asked: BTreeMap<u32, u64> = BTreeMap::new();
    let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
    take(&mut table, &mut sent);
    assert!(sent.is_empty(), "nobody has asked for anything: {sent:?}");
    for _ in 0..NEEDS_MAX {
        if input.is_over() {
            return;
        }
        let number = input.u8() % 3;
        let mut need = table.need(&mut input);
        need.receiver = ReceiverId(number.into());
        for range in &need.needs {
            for block in range.first..range.end().min(table.layout.blocks()) {
                *asked.entry(block).or_default() += most(&table, block, range.symbols);
            }
        }
        table.hear(host(2 * number), &Message::Need(need), 0);
        let wait = input.time().min(Duration::from_millis(300));
        table.pass(wait, usize::from(input.u8() % 4));
        take(&mut table, &mut sent);
        for (block, symbols) in &sent {
            let most = asked.get(block).copied().unwrap_or(0);
            assert!(*symbols <= most, "{symbols} symbols of block {block}, {most} were asked for");
        }
    }
}

/// As many symbols as a need may be answered with: twice the deficit and one more where half is
/// lost, at most K; S and as many again for proactive repair where all is lacking or soon sent.
fn most(table: &Table, block: u32, symbols: u16) -> u64 {
    let sources = table.layout.source_symbols(block);
    let padded = imgcast_common::fec::padded_symbols(sources).unwrap_or(sources);
    let whole = u64::from(sources) * 2 + 1;
    if symbols == WHOLE {
        whole
    } else {
        (u64::from(symbols) * 2 + 1).min(padded.into()).max(whole)
    }
}

/// Adds up what left, and looks at what was told of it.
fn take(table: &mut Table, sent: &mut BTreeMap<u32, u64>) {
    for burst in table.bursts.drain(..).filter(|burst| burst.block.stream == Stream::Image) {
        *sent.entry(burst.block.number).or_default() += u64::from(burst.count);
    }
    for planned in table.planned.drain(..) {
        assert_is_list(&planned);
    }
}

/// More say nothing new.
const NEEDS_MAX: u32 = 60;
