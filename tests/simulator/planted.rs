//! Mistakes made on purpose, and what a sender makes of a NEED with one of them.

use imgcast_common::wire::{Done, Need, WHOLE};

use crate::{attach::Surroundings, image::Image};

/// Mistakes of the kind that could slip in, one for each checker to prove itself on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum PlantedBug {
    /// A receiver writes blocks whose hash is wrong.
    HashCheckSkipped,
    /// A receiver believes any index.
    IndexCheckSkipped,
    /// A receiver takes symbols of other sessions for its own.
    SessionCheckSkipped,
    /// A receiver says that a block is stored before it is.
    StoredBeforeWritten,
    /// A receiver writes each block where the next one belongs.
    WrittenElsewhere,
    /// A receiver takes a failed write for a good one.
    WriteErrorIgnored,
    /// A receiver takes the index's word on zero blocks and does not write them.
    ZeroBlocksSkipped,
    /// A receiver drops the symbols of a block that could not be decoded.
    PutBackLost,
    /// A receiver asks to be let in only once.
    JoinSentOnce,
    /// A receiver sends every NEED many times.
    NeedsRepeated,
    /// A receiver believes what its journal claims.
    ClaimsBelieved,
    /// The sender acknowledges DONE to the group alone.
    AckOnlyToGroup,
    /// The sender does not look at deficits.
    DeficitsIgnored,
    /// The sender does not look at needs of whole blocks.
    WholeNeedsIgnored,
    /// The sender tells nobody what it plans.
    SyncNeverSent,
    /// The sender repeats repair symbols.
    RepairRepeated,
    /// The sender uses one counter for two datagrams now and then.
    CounterReused,
    /// The sender says END when half of the receivers are done.
    EndTooEarly,
    /// The sender takes everybody who speaks of being nearly done for done.
    DoneTooEarly,
    /// The sender is not told that what it handed out does not leave.
    BacklogUntold,
    /// A receiver is not told that it gets through less than arrives.
    PaceUntold,
}

impl PlantedBug {
    /// Those that break what must hold in every world. The others only cost speed.
    pub const ALL: [Self; 19] = [
        Self::HashCheckSkipped,
        Self::IndexCheckSkipped,
        Self::SessionCheckSkipped,
        Self::StoredBeforeWritten,
        Self::WrittenElsewhere,
        Self::WriteErrorIgnored,
        Self::ZeroBlocksSkipped,
        Self::PutBackLost,
        Self::JoinSentOnce,
        Self::NeedsRepeated,
        Self::ClaimsBelieved,
        Self::AckOnlyToGroup,
        Self::DeficitsIgnored,
        Self::WholeNeedsIgnored,
        Self::SyncNeverSent,
        Self::RepairRepeated,
        Self::CounterReused,
        Self::EndTooEarly,
        Self::DoneTooEarly,
    ];
}

/// A NEED as a sender with a planted bug sees it.
pub(crate) fn mutilated(around: &Surroundings, need: &Need) -> Need {
    let mut need = need.clone();
    if around.has(PlantedBug::DeficitsIgnored) {
        need.needs.retain(|range| range.symbols == WHOLE);
    }
    if around.has(PlantedBug::WholeNeedsIgnored) {
        need.needs.retain(|range| range.symbols != WHOLE);
    }
    need
}

/// What a sender with a planted bug makes of a receiver that has half of the image.
pub(crate) fn nearly_done(around: &Surroundings, need: &Need, image: &Image) -> Option<Done> {
    let much = need.done_blocks >= image.layout.blocks().div_ceil(2);
    (around.has(PlantedBug::DoneTooEarly) && much).then(|| Done {
        receiver: need.receiver,
        succeeded: true,
        image: image.id,
        bytes_written: image.layout.bytes(),
        seconds: 0,
        refetched_blocks: 0,
        error_code: 0,
        text: String::new(),
    })
}
