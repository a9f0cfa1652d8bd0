//! What follows for a session from the command line, the interface and the image.

use imgcast_common::net::{Family, Interface};

use crate::{config::Config, offered::Offered, pump::Addresses, session::SessionConfig};

/// What the session is told; its unicast is taken at `unicast_port`.
pub(crate) fn session_config(
    config: &Config,
    interface: &Interface,
    offer: &Offered,
    addresses: Addresses,
    index_hash: [u8; 32],
    unicast_port: u16,
) -> SessionConfig {
    SessionConfig {
        session: addresses.session,
        image: offer.index.image_id(),
        index_hash,
        layout: offer.layout,
        zero_blocks: offer.index.zero().clone(),
        name: config.name.clone(),
        sector_size: offer.sector_size,
        data_group: addresses.data_group,
        unicast_port,
        mtu: u16::try_from(interface.mtu_octets).unwrap_or(u16::MAX),
        receivers_min: config.one_way.map_or(config.start.receivers_min, |_| 0),
        wait_min: config.start.wait_min,
        wait_max: config.start.wait_max,
        start_timeout: config.start.timeout,
        rate_start: config.rate_bits_per_second_max,
        rate_max: rate_max(config, interface),
        one_way: config.one_way,
        framing_octets: framing(interface.family()),
        slow_receivers: config.slow_receivers,
    }
}

/// The rate never to exceed: what the operator says, or what the interface can do.
fn rate_max(config: &Config, interface: &Interface) -> u64 {
    let speed = interface.speed_megabits.map(|megabits| u64::from(megabits) * 1_000_000);
    config.rate_bits_per_second_max.or(speed).unwrap_or(RATE_UNKNOWN)
}

/// Octets of the socket's buffer at so many bits per second, five milliseconds' worth: a link that
/// is slower than the rate is to hold the sending thread up rather than to drop what it cannot
/// carry.
#[must_use]
pub fn send_buffer(rate: u64) -> usize {
    usize::try_from(rate / 1600).unwrap_or(usize::MAX).clamp(SEND_BUFFER_MIN, SEND_BUFFER_MAX)
}

/// What UDP, IP and Ethernet (preamble, header, FCS and gap) add to a payload.
const fn framing(family: Family) -> u16 {
    match family {
        Family::V4 => 8 + 20 + 38,
        Family::V6 => 8 + 40 + 38,
    }
}

/// Where the interface does not know its speed nothing but the search is to hold the session back:
/// two namespaces of one host carry 30 Gbit/s.
const RATE_UNKNOWN: u64 = 100_000_000_000;
/// A burst of the largest size fits, twice with what the kernel adds.
const SEND_BUFFER_MIN: usize = 64 << 10;
/// More only delays SYNC behind symbols.
const SEND_BUFFER_MAX: usize = 4 << 20;
