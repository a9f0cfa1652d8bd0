//! What is measured: a program, a network, an image.

use imgcast_tests::netns::{Lab, Node};

use crate::images::Spec;
use crate::peers::Peer;

/// One program sends one image over one network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// What the checks of its row call it.
    pub(crate) name: &'static str,
    pub(crate) peer: Peer,
    pub(crate) network: Network,
    pub(crate) image: Spec,
    pub(crate) start: Start,
}

/// What is there before the sender starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// The image in the page cache; it has never been sent.
    Unknown,
    /// Likewise, and it has been sent before.
    Indexed,
    /// Nothing: the image is on the disk only.
    Cold,
}

/// One sender, some receivers and the links between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    pub(crate) receivers: usize,
    pub(crate) mtu_octets: u32,
    /// Packets cross one by one, as they do between machines without segmentation offload.
    pub(crate) splits_bursts: bool,
    /// Of each receiver on its own, packet by packet; more than 0 splits bursts.
    pub(crate) loss_per_mille: u32,
    /// Of every link; else as fast as the machine goes.
    pub(crate) mbit_per_second: Option<u32>,
}

impl Network {
    /// Receivers that get what the sender hands over in one piece in one piece.
    pub(crate) const fn whole(receivers: usize) -> Self {
        let mtu_octets = 1500;
        Self {
            receivers,
            mtu_octets,
            splits_bursts: false,
            loss_per_mille: 0,
            mbit_per_second: None,
        }
    }

    /// One receiver, packet by packet.
    pub(crate) const fn packets(loss_per_mille: u32) -> Self {
        Self { splits_bursts: true, loss_per_mille, ..Self::whole(1) }
    }

    /// Receivers on links of a rate.
    pub(crate) const fn links(receivers: usize, mbit_per_second: u32, loss_per_mille: u32) -> Self {
        let mbit_per_second = Some(mbit_per_second);
        Self { receivers, mbit_per_second, ..Self::packets(loss_per_mille) }
    }

    /// Sets it up.
    ///
    /// # Errors
    ///
    /// The command that failed, with what it said.
    pub(crate) fn build(&self) -> Result<Lab, String> {
        let lab = Lab::new(self.receivers)?;
        if self.mtu_octets != 1500 {
            lab.set_mtu(self.mtu_octets)?;
        }
        if self.splits_bursts {
            lab.split_bursts(Node::Sender)?;
            for receiver in 0..self.receivers {
                lab.split_bursts(Node::Receiver(receiver))?;
            }
        }
        for receiver in (0..self.receivers).filter(|_| self.loss_per_mille > 0) {
            lab.lose(receiver, self.loss_per_mille)?;
        }
        if let Some(rate) = self.mbit_per_second {
            lab.limit_rate(rate)?;
        }
        Ok(lab)
    }

    /// The most image bits a second that the links' framing allows, at MTU 1500 over IPv4: 1,408
    /// octets of the image in 1,518 on the wire, head, trailer, preamble, FCS and gap included.
    pub(crate) fn goodput_max(&self) -> Option<f64> {
        self.mbit_per_second.map(|mbit| f64::from(mbit) * 1e6 * 1408.0 / 1518.0)
    }
}
