//! What people at the node see: progress, what is waited for, and what to check.

use std::time::{Duration, Instant};

use imgcast_common::{
    console::{Console, time_left},
    net::Interface,
    units::{BitRate, ByteSize, Seconds},
};

use crate::{
    config::ReceiveConfig,
    driver::now,
    session::{Notice, Offer, Stage, Status},
};

/// The view of one receiver.
#[derive(Debug)]
pub(crate) struct Report {
    console: Console,
    place: String,
    wanted: String,
    wants_any: bool,
    began_at: Instant,
    /// When the first block was there, and how many blocks were there some time ago.
    receiving: Option<Instant>,
    block_bytes: u64,
}

impl Report {
    pub(crate) fn new(shows: bool, interface: &Interface, config: &ReceiveConfig) -> Self {
        let rendezvous = config.network.rendezvous;
        let wanted = match &config.image {
            Some(image) => format!("a sender of {image}"),
            None => "a sender".into(),
        };
        Self {
            console: Console::new(shows),
            place: format!("{} ({})", interface.name, rendezvous),
            wanted,
            wants_any: config.image.is_none(),
            began_at: now(),
            receiving: None,
            block_bytes: 0,
        }
    }

    pub(crate) fn say(&self, text: &str) {
        self.console.say(text);
    }

    pub(crate) fn clear(&self) {
        self.console.clear();
    }

    pub(crate) fn chosen(&mut self, offer: &Offer) {
        let (name, layout) = (&offer.announce.name, offer.announce.layout);
        self.block_bytes = layout.block_size();
        let (size, sender) = (ByteSize(layout.bytes()), offer.sender.ip());
        self.console
            .say(&format!("joining {sender} for {name} ({size}), {}", offer.announce.image));
    }

    /// Tells how things stand, or what is waited for.
    pub(crate) fn progress(&mut self, now: Instant, status: &Status) {
        let elapsed = whole_seconds(now.saturating_duration_since(self.began_at));
        let silence = whole_seconds(status.silence);
        let place = &self.place;
        let (topic, text) = match status.stage {
            Stage::Listening if status.offers == 0 => {
                let wanted = &self.wanted;
                let check = if elapsed.0 >= ADVICE_AFTER {
                    "; check that it runs, that this interface is on its network, and that no \
                     firewall drops UDP"
                } else {
                    ""
                };
                let text =
                    format!("waiting for {wanted}: none heard on {place} for {elapsed}{check}");
                ("listening", text)
            }
            Stage::Listening if self.wants_any => {
                let offers = status.offers;
                ("offers", format!("offers heard on {place}: {offers}; listening for others"))
            }
            Stage::Listening => {
                let (offers, wanted) = (status.offers, &self.wanted);
                let text = format!("waiting for {wanted}: {offers} other offers heard on {place}");
                ("offers", text)
            }
            Stage::Joining => (
                "joining",
                "waiting for the sender to answer our JOIN; if this lasts, check that \
                  no firewall drops UDP between us"
                    .into(),
            ),
            Stage::Waiting => {
                let (expected, joined) = status.receivers;
                let start = match status.start_in_ms {
                    Some(ms) => {
                        let left = whole_seconds(Duration::from_millis(u64::from(ms)));
                        format!(" or in {left}")
                    }
                    None => String::new(),
                };
                let text = format!(
                    "waiting for the sender to start: {joined} of {expected} receivers joined, \
                     starts at {expected}{start}"
                );
                ("waiting", text)
            }
            Stage::Indexing => ("indexing", "receiving the index".into()),
            Stage::Receiving => ("receiving", self.receiving(now, status)),
            Stage::Orphaned => {
                let text = format!(
                    "no sender heard on {place} for {silence}: waiting for it, or for another one \
                     with this image, to come back"
                );
                ("orphaned", text)
            }
            Stage::Flushing => ("flushing", "all is verified; flushing to disk".into()),
            Stage::Parting => ("parting", "waiting for the sender to confirm".into()),
        };
        self.console.status(now, topic, &text);
    }

    fn receiving(&mut self, now: Instant, status: &Status) -> String {
        let since = *self.receiving.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        let share = f64::from(status.verified_blocks) / f64::from(status.blocks.max(1));
        let bits = f64::from(status.verified_blocks) * self.block_bytes as f64 * 8.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
        let rate = BitRate((bits / elapsed.as_secs_f64().max(0.2)) as u64);
        let way = if status.no_multicast { ", by unicast only" } else { "" };
        format!(
            "{:3.0} %  {rate}{}, loss {:.1} %{way}",
            share * 100.0,
            time_left(share, elapsed),
            status.network_loss * 100.0
        )
    }

    pub(crate) fn notice(&self, notice: &Notice, offer: Option<&Offer>) {
        let group = offer.map_or_else(String::new, |offer| offer.announce.data_group.to_string());
        let text = match notice {
            Notice::Joined | Notice::Indexed { .. } => return,
            Notice::NoMulticast => format!(
                "nothing comes from multicast group {group} on {}: asking for unicast; check that \
                 a switch with IGMP snooping has a querier, and that no firewall drops UDP",
                self.place
            ),
            Notice::MulticastAgain => format!("multicast group {group} is heard again"),
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
        };
        self.console.say(&text);
    }

    /// The image is there: its line goes to standard output, for scripts.
    pub(crate) fn done(&self, now: Instant, offer: Option<&Offer>, acknowledged: bool) {
        let Some(offer) = offer else { return };
        let seconds = now.saturating_duration_since(self.began_at).as_secs_f64();
        let (image, name) = (offer.announce.image, &offer.announce.name);
        let bytes = offer.announce.layout.bytes();
        println!("verified {image} {name} {bytes} bytes in {seconds:.1} s");
        if !acknowledged {
            self.console.say(
                "warning: the image is verified and written, but the sender did not confirm that \
                 it knows",
            );
        }
    }
}

fn whole_seconds(time: Duration) -> Seconds {
    Seconds(Duration::from_secs(time.as_secs()))
}

/// Whoever waits for so long wants to know what to check.
const ADVICE_AFTER: Duration = Duration::from_secs(10);
