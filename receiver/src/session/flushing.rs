//! When all blocks are verified and written the target is flushed, and perhaps read back, which can
//! take long. Whoever is the sender by then is told: if the session that brought the image is gone,
//! another one that has it is joined for no other reason.

use std::time::{Duration, Instant};

use imgcast_common::id::ImageId;

use super::{Event, Phase, Session, parting::DONE_PATIENCE};

/// How far the target is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Flush {
    #[default]
    NotAsked,
    Asked,
    /// The image as computed here, and how many octets were written.
    Done(ImageId, u64),
}

impl Session {
    /// Everything is flushed and in its place: the image has this hash, and so many octets were
    /// written.
    pub fn handle_flushed(&mut self, now: Instant, image: ImageId, bytes_written: u64) {
        self.flush = Flush::Done(image, bytes_written);
        if matches!(self.phase, Phase::Flushing) {
            self.part(now, Ok((image, bytes_written)));
        }
        self.settle(now);
    }

    /// Whether every block is verified and written.
    pub(super) fn has_everything(&self) -> bool {
        let all = self.image.as_ref().is_some_and(|image| image.verified().is_full());
        self.index_known && all && self.writing.is_empty()
    }

    /// Has everything flushed, unless it is or that was asked for before.
    pub(super) fn begin_flush(&mut self, now: Instant) {
        self.phase = Phase::Flushing;
        self.progress_at = now;
        match self.flush {
            Flush::NotAsked => {
                self.flush = Flush::Asked;
                self.events.push_back(Event::Flush);
            }
            Flush::Asked => {}
            Flush::Done(image, bytes_written) => self.part(now, Ok((image, bytes_written))),
        }
    }

    /// Whether the session that everything came from is gone, while it is still to be told.
    pub(super) fn tells_another(&self, now: Instant) -> bool {
        let has_to_tell = match &self.phase {
            Phase::Flushing => true,
            Phase::Parting(parting) => parting.has_succeeded(),
            _ => false,
        };
        has_to_tell
            && !self.is_one_way()
            && (self.contact.is_orphaned() || self.contact.is_silent(now))
    }

    /// Where there is no rendezvous group, that other one has to be asked for.
    pub(super) fn look_for_another(&mut self, now: Instant) {
        if self.tells_another(now) {
            self.look_again(now);
        }
    }

    /// When to do that.
    pub(super) fn look_for_another_at(&self) -> Option<Instant> {
        let silent_at = self.contact.silent_at();
        let at = self.look_again_at().filter(|_| !self.is_one_way());
        at.map(|at| if self.contact.is_orphaned() { at } else { at.max(silent_at) })
    }

    /// How long an answer to JOIN, or another sender, is waited for.
    pub(super) fn patience(&self) -> Option<Duration> {
        if self.has_everything() { Some(DONE_PATIENCE) } else { self.config.receive_timeout }
    }
}
