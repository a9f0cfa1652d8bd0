//! What people at the node see: progress, what is waited for, and what to check.

use std::time::{Duration, Instant};

use imgcast_common::{
    console::{Console, time_left},
    net::Interface,
    units::{BitRate, ByteSize, Counted, Seconds},
};

use crate::{
    config::ReceiveConfig,
    driver::now,
    image::Disk,
    session::{Notice, Offer, Stage, Status},
};

/// The view of one receiver.
#[derive(Debug)]
pub(crate) struct Report {
    console: Console,
    place: String,
    wanted: String,
    wants_any: bool,
    /// The disk that is overwritten, until that was said.
    overwritten: Option<Disk>,
    began_at: Instant,
    /// What is being done or waited for, and since when.
    topic: (&'static str, Instant),
    /// Since when, and how many octets had been fetched by then.
    receiving_since: Option<(Instant, u64)>,
    /// Blocks that nobody sends: they are there at once and say nothing of the rate.
    zero_blocks: u32,
}

impl Report {
    pub(crate) fn new(
        interface: &Interface,
        overwritten: Option<Disk>,
        config: &ReceiveConfig,
    ) -> Self {
        let rendezvous = config.network.rendezvous;
        let wanted = match &config.image {
            Some(image) => format!("a sender of {image}"),
            None => "a sender".into(),
        };
        let now = now();
        Self {
            console: Console::new(!config.is_quiet),
            place: format!("{} ({})", interface.name, rendezvous),
            wanted,
            wants_any: config.image.is_none(),
            overwritten: overwritten.filter(|_| !config.is_quiet),
            began_at: now,
            topic: ("", now),
            receiving_since: None,
            zero_blocks: 0,
        }
    }

    pub(crate) fn say(&self, text: &str) {
        self.console.say(text);
    }

    pub(crate) fn clear(&self) {
        self.console.clear();
    }

    /// Says once of a disk that it is overwritten, when that `is_certain`.
    pub(crate) fn overwrites(&mut self, is_certain: bool) {
        if let Some(disk) = self.overwritten.take_if(|_| is_certain) {
            self.console.say(&format!("overwriting {disk}"));
        }
    }

    /// An offer was chosen, and its image fits.
    pub(crate) fn chosen(&self, offer: &Offer) {
        let (name, layout) = (&offer.announce.name, offer.announce.layout);
        let (size, sender) = (ByteSize(layout.bytes()), offer.sender.ip());
        if offer.announce.one_way {
            let image = offer.announce.image;
            let text = format!(
                "listening to {sender} for {name} ({size}), {image}: one way, in {}; what does not \
                 come so cannot be asked for",
                Counted::passes(offer.announce.receivers_expected)
            );
            return self.console.say(&text);
        }
        self.console
            .say(&format!("joining {sender} for {name} ({size}), {}", offer.announce.image));
    }

    /// Tells how things stand, or what is waited for; what to check, once that takes long. Whoever
    /// asked is told at once. If the target is to be read back, `proved` blocks have been.
    pub(crate) fn progress(&mut self, now: Instant, status: &Status, proved: Option<u32>) {
        let (topic, text) = self.told(now, status, proved);
        if self.console.is_asked() {
            self.console.say(&text);
        }
        self.console.status(now, topic, &text);
    }

    fn told(
        &mut self,
        now: Instant,
        status: &Status,
        proved: Option<u32>,
    ) -> (&'static str, String) {
        let topic = match status.stage {
            Stage::Listening if status.is_ending => "ending",
            Stage::Listening if status.offers > 0 => "offers",
            Stage::Listening => "listening",
            Stage::Joining => "joining",
            Stage::Waiting => "waiting",
            Stage::Indexing => "indexing",
            Stage::Receiving => "receiving",
            Stage::Orphaned => "orphaned",
            Stage::Flushing => "flushing",
            Stage::Parting => "parting",
        };
        if self.topic.0 != topic {
            self.topic = (topic, now);
        }
        let waited = now.saturating_duration_since(self.topic.1);
        let mut text = match status.stage {
            Stage::Waiting if status.pass.is_some() => waiting_one_way(status),
            Stage::Listening if status.is_ending => self.ending(),
            Stage::Listening if status.offers == 0 => self.listening(waited),
            Stage::Listening => self.choosing(status.offers),
            Stage::Joining => "waiting for the sender to answer our JOIN".into(),
            Stage::Waiting => waiting(status),
            Stage::Indexing => "receiving the index".into(),
            Stage::Receiving => self.receiving(now, status),
            Stage::Orphaned if status.silence < SILENCE_SHORT => format!(
                "the session is over: waiting on {} for another one with this image",
                self.place
            ),
            Stage::Orphaned => format!(
                "no sender heard on {} for {}: waiting for it, or for another one with this \
                 image, to come back",
                self.place,
                whole_seconds(status.silence)
            ),
            Stage::Flushing => match proved {
                Some(proved @ 1..) => {
                    let all = status.blocks;
                    format!("all is flushed; {proved} of {all} blocks read back and right")
                }
                _ => "all is verified; flushing to disk".into(),
            },
            Stage::Parting => "waiting for the sender to confirm".into(),
        };
        if waited >= ADVICE_AFTER {
            text += advice(status.stage);
        }
        (topic, text)
    }

    fn listening(&self, waited: Duration) -> String {
        let (wanted, place) = (&self.wanted, &self.place);
        match whole_seconds(waited) {
            Seconds(Duration::ZERO) => format!("listening for {wanted} on {place}"),
            waited => format!("waiting for {wanted}: none heard on {place} for {waited}"),
        }
    }

    fn ending(&self) -> String {
        let (wanted, place) = (&self.wanted, &self.place);
        format!("waiting for {wanted}: what is heard on {place} is ending, and lets nobody in")
    }

    fn choosing(&self, offers: usize) -> String {
        let (wanted, place) = (&self.wanted, &self.place);
        if self.wants_any {
            format!("offers heard on {place}: {offers}; listening for others")
        } else {
            let others = Counted(offers as u64, "other offer", "other offers");
            format!("waiting for {wanted}: {others} heard on {place}")
        }
    }

    fn receiving(&mut self, now: Instant, status: &Status) -> String {
        let begun = self.receiving_since.get_or_insert((now, status.fetched_bytes));
        let (since, fetched_before) = *begun;
        let elapsed = now.saturating_duration_since(since);
        let share = |done: u32, all: u32| f64::from(done) / f64::from(all.max(1));
        let percent = share(status.verified_blocks, status.blocks) * 100.0;
        let fetched = status.verified_blocks.saturating_sub(self.zero_blocks);
        let to_fetch = status.blocks.saturating_sub(self.zero_blocks);
        let bits = status.fetched_bytes.saturating_sub(fetched_before) as f64 * 8.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
        let rate = BitRate((bits / elapsed.as_secs_f64().max(0.2)) as u64);
        let left = time_left(share(fetched, to_fetch), elapsed);
        let loss = status.network_loss * 100.0;
        let looking = match (status.claimed_blocks, status.blocks) {
            (0, _) => String::new(),
            (claimed, all) => {
                let all = Counted::blocks(all);
                format!(", {claimed} of {all} left to look for on the target")
            }
        };
        if let Some((pass, passes)) = status.pass {
            // How long it takes depends on what the passes that follow bring.
            let pass = format!("pass {pass} of {passes}");
            return format!("{percent:3.0} %  {rate}, loss {loss:.1} %, {pass}{looking}");
        }
        let way = if status.no_multicast { ", by unicast only" } else { "" };
        format!("{percent:3.0} %  {rate}{left}, loss {loss:.1} %{way}{looking}")
    }

    /// What was written is not there.
    pub(crate) fn lost(&self, blocks: usize, why: &str) {
        self.say(&format!(
            "{} not on the target after all ({why}): to be fetched again; look at the kernel's log \
             (dmesg)",
            Counted::blocks(blocks as u64)
        ));
    }

    pub(crate) fn notice(&mut self, notice: &Notice, offer: Option<&Offer>) {
        let group = offer.map_or_else(String::new, |offer| offer.announce.data_group.to_string());
        let is_one_way = offer.is_some_and(|offer| offer.announce.one_way);
        let text = match notice {
            Notice::Joined => return,
            Notice::Indexed { zero_blocks } => {
                self.zero_blocks = *zero_blocks;
                return;
            }
            Notice::NoMulticast { .. } if is_one_way => format!(
                "nothing comes from multicast group {group} on {}: nothing else can be asked for; \
                 check the link, that a switch with IGMP snooping has a querier, and that no \
                 firewall drops UDP",
                self.place
            ),
            Notice::NoMulticast { any_more: false } => format!(
                "nothing comes from multicast group {group} on {}: asking for unicast; check that \
                 a switch with IGMP snooping has a querier, and that no firewall drops UDP",
                self.place
            ),
            Notice::NoMulticast { any_more: true } => format!(
                "nothing comes from multicast group {group} on {} any more: asking for unicast and \
                 joining it anew; switches with IGMP snooping and no querier forget who listens",
                self.place
            ),
            Notice::MulticastAgain { by_joining: false } => {
                format!("multicast group {group} is heard again")
            }
            Notice::MulticastAgain { by_joining: true } => format!(
                "multicast group {group} is heard again since it was joined anew: a switch seems \
                 to have forgotten it; check that the network has an IGMP querier"
            ),
            Notice::SenderSilent => "the sender fell silent".into(),
            Notice::SenderBack => "the sender is heard again".into(),
            Notice::SessionOver(text) => format!("the sender ended the session: {text}"),
            Notice::Polluted(block, times) => {
                format!("{block} had a wrong hash ({times}×) and is fetched again")
            }
            Notice::WrongIndex => "the index was wrong and is fetched again".into(),
            Notice::OtherVersion(version) => {
                format!("a sender of protocol version {version} is heard; we speak another one")
            }
            Notice::OtherImage(other) => {
                let (name, size) = (&other.announce.name, other.announce.layout.bytes());
                format!(
                    "{} offers another image as {name} ({}), {}; to take that one, stop this \
                     receiver and start it again, with --resume to fetch only what differs",
                    other.sender.ip(),
                    ByteSize(size),
                    other.announce.image
                )
            }
        };
        self.console.say(&text);
    }

    /// The image is there: its line goes to standard output, for scripts.
    pub(crate) fn done(
        &self,
        now: Instant,
        offer: Option<&Offer>,
        found_blocks: u32,
        acknowledged: bool,
    ) {
        let Some(offer) = offer else { return };
        let seconds = now.saturating_duration_since(self.began_at).as_secs_f64();
        let (image, name) = (offer.announce.image, &offer.announce.name);
        let bytes = offer.announce.layout.bytes();
        let text = format!("verified {image} {name} {bytes} bytes in {seconds:.1} s");
        self.console.result(&text);
        if found_blocks > 0 {
            // Zero blocks are made, whatever was there.
            let data_blocks = offer.announce.layout.blocks().saturating_sub(self.zero_blocks);
            let all = Counted::blocks(data_blocks);
            self.console.say(&format!("{found_blocks} of {all} were on the target before"));
        }
        if !acknowledged && !offer.announce.one_way {
            self.console.say(
                "warning: the image is verified and written, but the sender did not confirm that \
                 it knows",
            );
        }
    }
}

fn waiting(status: &Status) -> String {
    let (expected, joined) = status.receivers;
    let start = match status.start_in_ms {
        Some(ms) => format!(" or in {}", whole_seconds(Duration::from_millis(u64::from(ms)))),
        None => String::new(),
    };
    format!(
        "waiting for the sender to start: {joined} of {expected} receivers joined, starts at \
         {expected}{start}"
    )
}

fn waiting_one_way(status: &Status) -> String {
    let start = status.start_in_ms.map(|ms| Duration::from_millis(u64::from(ms)));
    format!("waiting for the sender to start, in {}", whole_seconds(start.unwrap_or_default()))
}

/// What to check where a wait takes long.
const fn advice(stage: Stage) -> &'static str {
    match stage {
        Stage::Listening => {
            "; check that it runs, that this interface is on its network, and that no firewall \
             drops UDP"
        }
        Stage::Joining | Stage::Indexing => "; check that no firewall drops UDP between us",
        Stage::Orphaned => "; check that it still runs, and the network between us",
        Stage::Parting => "; check that it still runs",
        Stage::Waiting | Stage::Receiving | Stage::Flushing => "",
    }
}

fn whole_seconds(time: Duration) -> Seconds {
    Seconds(Duration::from_secs(time.as_secs()))
}

/// A sender that was heard so lately is not silent: it said that it goes.
const SILENCE_SHORT: Duration = Duration::from_secs(2);
/// Whoever waits for so long wants to know what to check.
const ADVICE_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            console: Console::new(false),
            place: "eth0 (239.255.63.30:6330)".into(),
            wanted: "a sender".into(),
            wants_any: true,
            overwritten: None,
            began_at: now(),
            topic: ("", now()),
            receiving_since: None,
            zero_blocks: 0,
        }
    }

    fn status(stage: Stage) -> Status {
        Status {
            stage,
            claimed_blocks: 0,
            verified_blocks: 0,
            blocks: 100,
            fetched_bytes: 0,
            network_loss: 0.0,
            receivers: (1, 1),
            start_in_ms: None,
            pass: None,
            no_multicast: false,
            silence: Duration::ZERO,
            offers: 0,
            is_ending: false,
        }
    }

    #[test]
    fn zero_blocks_count_as_done_but_not_as_received() {
        let mut report = report();
        report.notice(&Notice::Indexed { zero_blocks: 60 }, None);
        let mut status = Status { verified_blocks: 60, ..status(Stage::Receiving) };
        let begin = report.began_at;
        assert_eq!(report.told(begin, &status, None).1, " 60 %  0 bit/s, loss 0.0 %");
        status.fetched_bytes = 1_000_000;
        let text = report.told(begin + Duration::from_secs(1), &status, None).1;
        assert_eq!(text, " 60 %  8.0 Mbit/s, loss 0.0 %", "no block is whole yet");
        (status.verified_blocks, status.fetched_bytes) = (70, 10_000_000);
        let text = report.told(begin + Duration::from_secs(10), &status, None).1;
        assert_eq!(text, " 70 %  8.0 Mbit/s, 30s left, loss 0.0 %");
    }

    #[test]
    fn a_wait_is_told_plainly_first_and_what_to_check_after_ten_seconds_of_the_same() {
        let mut report = report();
        let begin = report.began_at;
        let mut told = |seconds, stage| {
            report.told(begin + Duration::from_secs(seconds), &status(stage), None).1
        };
        let place = "on eth0 (239.255.63.30:6330)";
        let listening = format!("listening for a sender {place}");
        let plain = format!("waiting for a sender: none heard {place} for ");
        assert_eq!(told(0, Stage::Listening), listening);
        assert_eq!(told(9, Stage::Listening), format!("{plain}9s"));
        assert!(told(10, Stage::Listening).starts_with(&format!("{plain}10s; check that ")));
        let joining = "waiting for the sender to answer our JOIN";
        assert_eq!(told(10, Stage::Joining), joining);
        assert_eq!(told(19, Stage::Joining), joining);
        assert!(told(20, Stage::Joining).starts_with(&format!("{joining}; check that ")));
    }

    #[test]
    fn what_is_read_back_is_counted() {
        let mut report = report();
        let begin = report.began_at;
        let mut told = |proved| report.told(begin, &status(Stage::Flushing), proved).1;
        assert_eq!(told(None), "all is verified; flushing to disk");
        assert_eq!(told(Some(0)), told(None));
        assert_eq!(told(Some(7)), "all is flushed; 7 of 100 blocks read back and right");
    }

    #[test]
    fn a_session_that_is_ending_is_no_silence() {
        let ending = Status { is_ending: true, ..status(Stage::Listening) };
        let mut report = report();
        let place = "on eth0 (239.255.63.30:6330)";
        let text =
            format!("waiting for a sender: what is heard {place} is ending, and lets nobody in");
        assert_eq!(report.told(report.began_at, &ending, None).1, text);
    }
}
