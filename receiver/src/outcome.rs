//! What a session's end means to the operator.

use imgcast_common::{net::Interface, wire::VERSION};

use crate::{
    config::{ImageChoice, ReceiveConfig},
    error::{self, Error, Heard},
    image::Target,
    session::{Failure, Offer, Status, Wanted},
};

/// How a transfer ended, the image being there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Whether the sender knows.
    pub acknowledged: bool,
}

/// What was known when it ended.
pub(crate) struct Circumstances<'a> {
    pub(crate) config: &'a ReceiveConfig,
    pub(crate) interface: &'a Interface,
    pub(crate) offer: Option<&'a Offer>,
    pub(crate) status: Status,
    pub(crate) heard: Heard,
    pub(crate) index_error: String,
}

impl Circumstances<'_> {
    /// The error that says so.
    pub(crate) fn error(self, failure: Failure) -> Error {
        let heard = Box::new(self.heard.clone());
        let sender = self.offer.map_or(self.config.network.rendezvous, |offer| offer.sender);
        let missing_blocks = self.status.blocks.saturating_sub(self.status.verified_blocks);
        let receive_timeout = self.config.receive_timeout.unwrap_or_default();
        match failure {
            Failure::NoSender => {
                Error::NoSender { waited: self.config.start_timeout.unwrap_or_default(), heard }
            }
            Failure::Ending(offer) => Error::SessionEnding {
                waited: self.config.start_timeout.unwrap_or_default(),
                offer: Box::new(shown(&offer)),
            },
            Failure::OtherVersion(theirs) => {
                let interface = self.interface.name.clone();
                Error::Version { theirs, ours: VERSION, interface }
            }
            Failure::SeveralImages(offers) => Error::SeveralOffered { offered: listed(&offers) },
            Failure::NotOffered(offers) => Error::NotOffered {
                wanted: self.config.image.as_ref().map(ToString::to_string).unwrap_or_default(),
                offered: listed(&offers),
            },
            Failure::Mtu { datagram_octets, sender_mtu } => Error::Mtu {
                interface: self.interface.name.clone(),
                own_mtu_octets: self.interface.mtu_octets,
                sender_mtu_octets: sender_mtu
                    .map_or_else(|| self.mtu_for(datagram_octets), u32::from),
                is_told: sender_mtu.is_some(),
            },
            Failure::Refused(reason) => Error::Refused { sender, reason },
            Failure::Ejected(reason) => Error::Ejected { reason },
            Failure::SenderGone(last_words) => {
                Error::SenderGone { waited: receive_timeout, missing_blocks, last_words, heard }
            }
            Failure::ImageGone(last_words) => Error::ImageGone { missing_blocks, last_words },
            Failure::Stalled => {
                Error::Stalled { waited: receive_timeout, sender, missing_blocks, heard }
            }
            Failure::Lacking(lack) => {
                Error::Lacking { all_blocks: self.status.blocks, lack, heard }
            }
            Failure::Block(block) => Error::BlockWrong {
                block: block.number,
                image: self.image(),
                attempts: ATTEMPTS_BLOCK,
            },
            Failure::Index => Error::IndexWrong {
                image: self.image(),
                attempts: ATTEMPTS_INDEX,
                text: self.index_error,
            },
            Failure::Interrupted | Failure::Driver => {
                Error::Internal { text: format!("the session ended with {failure:?}") }
            }
        }
    }

    fn image(&self) -> imgcast_common::id::ImageId {
        let none = imgcast_common::id::ImageId([0; 32]);
        self.offer.map_or(none, |offer| offer.announce.image)
    }

    /// The MTU that datagrams of so many octets need, with IP and UDP headers.
    fn mtu_for(&self, datagram_octets: usize) -> u32 {
        let headers = self.interface.mtu_octets as usize - self.interface.max_datagram_octets();
        u32::try_from(datagram_octets + headers).unwrap_or(u32::MAX)
    }
}

impl From<&ImageChoice> for Wanted {
    fn from(choice: &ImageChoice) -> Self {
        match choice {
            ImageChoice::Id(image) => Self::Image(*image),
            ImageChoice::Name(name) => Self::Name(name.to_string()),
        }
    }
}

/// What tells this node and target from others, in every run of the program. Nodes that have just
/// booted often share a host name: their interfaces' hardware addresses differ.
pub(crate) fn key(interface: &Interface, host: &str, target: &Target) -> [u8; 16] {
    let hardware = format!("/sys/class/net/{}/address", interface.name);
    let hardware = std::fs::read_to_string(hardware).unwrap_or_default();
    let parts = [hardware.as_bytes(), b"\0", host.as_bytes(), b"\0", &target.canonical_key()];
    let hash = blake3::hash(&parts.concat());
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_bytes()[..16]);
    key
}

/// Offers in the words of errors.
pub(crate) fn listed(offers: &[Offer]) -> Vec<error::Offer> {
    offers.iter().map(shown).collect()
}

fn shown(offer: &Offer) -> error::Offer {
    error::Offer {
        name: offer.announce.name.to_string(),
        image: offer.announce.image,
        image_bytes: offer.announce.layout.bytes(),
        sender: offer.sender,
    }
}

/// After so many wrong copies the session gives a block up.
const ATTEMPTS_BLOCK: u32 = 8;
/// And the index.
const ATTEMPTS_INDEX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_name_differ_by_their_hardware_address() {
        let output = std::env::temp_dir().join(format!("imgcast-key-{}", std::process::id()));
        let target = Target::open(&output).unwrap();
        let on = |name: &str| Interface {
            name: name.into(),
            index: 1,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            mtu_octets: 1500,
            speed_megabits: None,
            is_loopback: false,
            is_multicast: true,
            is_up: true,
        };
        let (lo, none) = (on("lo"), on("no-such-interface"));
        assert_eq!(key(&lo, "localhost", &target), key(&lo, "localhost", &target));
        assert_ne!(key(&lo, "localhost", &target), key(&none, "localhost", &target));
        assert_ne!(key(&lo, "localhost", &target), key(&lo, "node1", &target));
    }
}
