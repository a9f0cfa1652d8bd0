//! The yardstick: random octets through the very calls that both programs send and receive with,
//! and no protocol. What a machine carries this way is what a transfer is measured against.
//!
//! ```text
//!  send: one thread, bursts of [head | slice of a buffer | trailer] ──► group
//!  receive: one thread reads batches ──► another counts, copies, checks them
//! ```
//!
//! Both ends print one line of JSON. The first octets of each datagram number it; the sender's
//! last datagrams say how many there were.
//!
//! With an image in the place of random octets it does the work that every transfer has to do, and
//! no more:
//!
//! ```text
//!  send-image: one thread reads a block, hashes it, sums up and sends its datagrams ──► group
//!  receive-image: one thread reads batches ──► another checks and copies each datagram, hashes
//!                                              and writes each block ──► sender
//! ```
//!
//! All that comes back is how much is written, so that no datagram comes when there is no room
//! for it: those would cost time and be of no use. What is lost all the same ends both.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod image;
mod receive;
mod send;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use imgcast_common::layout::symbol_size_for;
use imgcast_common::net::{Family, Interface, NetError, Offload};
use imgcast_common::units::{BitRate, Seconds};
use imgcast_common::wire::{DATA_HEAD_LEN, TRAILER_LEN};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Sends and receives random octets as fast as the batch calls go.
#[derive(Debug, Parser)]
#[command(name = "imgcast-raw")]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Send until the time is over, then say how much it was
    Send(send::Options),
    /// Count what arrives until the sender says it is over
    Receive(receive::Options),
    /// Send an image to one receiver
    SendImage(image::SendOptions),
    /// Write the image that arrives
    ReceiveImage(image::ReceiveOptions),
}

/// What both ends are told.
#[derive(Debug, clap::Args)]
struct Path {
    /// Interface to use: eth0, its address or its subnet
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Where to send to and what to listen to
    #[arg(long, value_name = "GROUP:PORT", default_value = "239.255.77.1:9000")]
    group: SocketAddr,
    /// Whether to use segmentation offload, as both programs do
    #[arg(long, value_enum, default_value_t = Switch::On)]
    offload: Switch,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Path {
    fn interface(&self) -> Result<Interface, NetError> {
        Interface::find(&self.interface, Family::of(self.group.ip()))
    }

    const fn offload(&self) -> Offload {
        match self.offload {
            Switch::On => Offload::IfAvailable,
            Switch::Off => Offload::Off,
        }
    }
}

fn main() -> ExitCode {
    let done = match Args::parse().role {
        Role::Send(options) => send::run(&options),
        Role::Receive(options) => receive::run(&options),
        Role::SendImage(options) => image::send(&options),
        Role::ReceiveImage(options) => image::receive(&options),
    };
    match done {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("imgcast-raw: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What both ends report in the same words.
fn report(octets: u64, datagrams: u64, took: Duration) -> serde_json::Value {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let (user, system) = usage.map_or((0, 0), |usage| {
        (usage.user_time().num_microseconds(), usage.system_time().num_microseconds())
    });
    let seconds = took.as_secs_f64();
    serde_json::json!({
        "octets": octets,
        "datagrams": datagrams,
        "seconds": seconds,
        "gbit_per_second": octets as f64 * 8e-9 / seconds.max(f64::MIN_POSITIVE),
        "cpu_seconds": { "user": user as f64 * 1e-6, "system": system as f64 * 1e-6 },
    })
}

/// The largest datagram of an image on this interface, its head and trailer included.
fn datagram_octets(interface: &Interface) -> usize {
    let symbol_size = symbol_size_for(interface.max_datagram_octets()).unwrap_or(64);
    OVERHEAD + usize::from(symbol_size)
}

/// Octets around the payload, as in a DATA datagram.
const OVERHEAD: usize = DATA_HEAD_LEN + TRAILER_LEN;

/// In the place of a number: the sender is done. Its totals follow.
const END: u64 = u64::MAX;

/// Where random octets are taken from and copied to: far larger than any cache.
const RING_OCTETS: usize = 64 << 20;
