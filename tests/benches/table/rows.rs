//! The rows of the table: what is measured in each, in which order, and the targets.

use crate::cases::{Case, Network, Start};
use crate::checks::{Bound, Check, Value};
use crate::images::Spec;
use crate::peers::Peer;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) what: String,
    /// In the order of a repetition: what is compared runs close together.
    pub(crate) cases: Vec<Case>,
    pub(crate) checks: Vec<Check>,
}

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let losses = |losses: &'static [u32], row: fn(u32) -> Row| losses.iter().map(move |l| row(*l));
    [one_fast(), eight_fast(), floor_whole(), floor_eight()]
        .into_iter()
        .chain(losses(&[0, 10, 50], packets))
        .chain([floor_packets()])
        .chain(losses(&[0, 10, 50, 200], gigabit))
        .chain(losses(&[0, 10], cold))
        .chain(losses(&[0, 10, 50, 100, 200], crowd))
        .chain([scale(), jumbo(), resident("random", RANDOM_4_GIB), resident("sparse", SPARSE)])
        .chain([zeroes(), ipv6(), plain()])
        .collect()
}

fn one_fast() -> Row {
    let network = Network::whole(1);
    let image = Spec::random(2048);
    let cases = vec![
        raw(network),
        case("imgcast", network, image),
        indexed("imgcast-indexed", network, image),
        peer("udpcast", Peer::Udpcast, network, image),
        peer("uftp", Peer::Uftp, network, image),
        raw(network),
    ];
    let checks = vec![
        at_least(Value::Gigabits("raw"), RAW_WHOLE_GIGABITS),
        at_least(Value::Goodput("imgcast", "raw"), 0.25),
        at_least(Value::Goodput("imgcast", "udpcast"), 4.0),
        at_least(Value::Goodput("imgcast", "uftp"), 4.0),
        at_most(Value::Cpu("imgcast", "udpcast"), 0.5),
        at_most(Value::SenderResident("imgcast"), 192.0),
    ];
    row("fast-1", "offloads on, no rate limit, 1 receiver, 2 GiB in tmpfs", cases, checks)
}

fn eight_fast() -> Row {
    let (network, image) = (Network::whole(8), Spec::random(512));
    let cases = vec![
        case("imgcast", network, image),
        peer("udpcast", Peer::Udpcast, network, image),
        raw(network),
    ];
    let checks = vec![at_least(Value::Goodput("imgcast", "udpcast"), 5.0)];
    row("fast-8", "offloads on, no rate limit, 8 receivers, 512 MiB in tmpfs", cases, checks)
}

fn floor_whole() -> Row {
    let what = "what fast-1 takes without a protocol, 2 GiB";
    floor("floor-1", what, Network::whole(1), Spec::random(2048))
}

fn floor_eight() -> Row {
    let what = "what fast-8 takes without a protocol, 512 MiB";
    floor("floor-8", what, Network::whole(8), Spec::random(512))
}

fn floor_packets() -> Row {
    let what = "what packets-0 takes without a protocol, 1 GiB";
    floor("floor-packets-0", what, Network::packets(0), Spec::random(1024))
}

fn floor(name: &str, what: &str, network: Network, image: Spec) -> Row {
    let cases = vec![
        raw(network),
        peer("raw-image", Peer::RawImage, network, image),
        indexed("imgcast-indexed", network, image),
        case("imgcast", network, image),
        peer("raw-image", Peer::RawImage, network, image),
        peer("udpcast", Peer::Udpcast, network, image),
    ];
    let ratios = [
        ("imgcast-indexed", "raw-image"),
        ("imgcast", "raw-image"),
        ("raw-image", "raw"),
        ("raw-image", "udpcast"),
        ("imgcast-indexed", "udpcast"),
    ];
    let values = ratios.map(|(of, over)| Value::Goodput(of, over));
    let checks = values.into_iter().chain([Value::Cpu("imgcast-indexed", "raw-image")]);
    let checks = checks.map(|value| Check { value, bound: Bound::Any }).collect();
    row(name, what, cases, checks)
}

fn packets(loss_per_mille: u32) -> Row {
    let (network, image) = (Network::packets(loss_per_mille), Spec::random(1024));
    let least = if loss_per_mille < 50 { 0.6 } else { 0.45 };
    let what = format!("offloads off, 1 receiver, {}, 1 GiB in tmpfs", percent(loss_per_mille));
    let cases = vec![
        raw(network),
        case("imgcast", network, image),
        indexed("imgcast-indexed", network, image),
        raw(network),
    ];
    let checks = vec![
        at_least(Value::Gigabits("raw"), RAW_PACKETS_GIGABITS),
        at_least(Value::Goodput("imgcast", "raw"), least),
        Check { value: Value::Goodput("imgcast-indexed", "raw"), bound: Bound::Any },
    ];
    row(&format!("packets-{}", loss_per_mille / 10), &what, cases, checks)
}

fn gigabit(loss_per_mille: u32) -> Row {
    let network = Network::links(1, 1_000, loss_per_mille);
    let image = indexed("imgcast", network, RANDOM_4_GIB);
    let least = match loss_per_mille {
        0 => 0.97,
        10 => 0.94,
        50 => 0.88,
        _ => 0.7,
    };
    let what = format!("1 Gbit/s, 1 receiver, {}, 4 GiB, index cached", percent(loss_per_mille));
    let checks = vec![at_least(Value::OfLink("imgcast"), least)];
    row(&format!("gigabit-{}", loss_per_mille / 10), &what, vec![image], checks)
}

fn cold(loss_per_mille: u32) -> Row {
    let network = Network::links(1, 1_000, loss_per_mille);
    let image = Spec { on_disk: true, ..Spec::random(512) };
    let cases = vec![Case { start: Start::Cold, ..case("imgcast", network, image) }];
    let least = if loss_per_mille == 0 { 0.85 } else { 0.83 };
    let what = format!("1 Gbit/s, 512 MiB on disk, {}, nothing cached", percent(loss_per_mille));
    let checks = vec![at_least(Value::OfLink("imgcast"), least)];
    row(&format!("cold-{}", loss_per_mille / 10), &what, cases, checks)
}

fn crowd(loss_per_mille: u32) -> Row {
    let network = Network::links(16, 50, loss_per_mille);
    let cases = vec![case("imgcast", network, Spec::random(32))];
    let most = match loss_per_mille {
        0 => 6.1,
        10 => 6.3,
        50 => 6.8,
        100 => 7.2,
        _ => 8.4,
    };
    let what = format!("16 receivers, 50 Mbit/s, 32 MiB, {} each", percent(loss_per_mille));
    let checks = vec![at_most(Value::Seconds("imgcast"), most)];
    row(&format!("crowd-{}", loss_per_mille / 10), &what, cases, checks)
}

fn scale() -> Row {
    let image = Spec::random(64);
    let cases = vec![
        case("one", Network::links(1, 50, 10), image),
        case("sixteen", Network::links(16, 50, 10), image),
    ];
    let checks = vec![at_most(Value::Time("sixteen", "one"), 1.05)];
    row("scale", "16 receivers against 1, 50 Mbit/s, 64 MiB, 1 % loss each", cases, checks)
}

fn jumbo() -> Row {
    let small = Network::packets(0);
    let large = Network { mtu_octets: 9000, ..small };
    let image = Spec::random(1024);
    let cases = vec![case("mtu-1500", small, image), case("mtu-9000", large, image)];
    let checks = vec![at_least(Value::Goodput("mtu-9000", "mtu-1500"), 1.3)];
    row("jumbo", "MTU 9000 against 1500, offloads off, 1 receiver, 1 GiB", cases, checks)
}

fn resident(name: &str, image: Spec) -> Row {
    let options = Peer::Imgcast { sender: &[], receiver: &["--memory", "256M"] };
    let cases = vec![peer("imgcast", options, Network::whole(1), image)];
    let checks = vec![
        at_most(Value::SenderResident("imgcast"), 192.0),
        at_most(Value::ReceiverResident("imgcast"), 256.0 + 32.0),
    ];
    let gib = image.mib / 1024;
    let what = format!("memory, --memory 256M, {gib} GiB, {} MiB of it data", image.data_mib);
    row(&format!("memory-{name}"), &what, cases, checks)
}

fn zeroes() -> Row {
    let network = Network::links(1, 1_000, 0);
    let cases = vec![
        indexed("data", network, Spec::random(3 << 10)),
        indexed("sparse", network, Spec { mib: 10 << 10, ..Spec::random(3 << 10) }),
    ];
    let checks = vec![
        at_most(Value::Time("sparse", "data"), 1.05),
        at_most(Value::Sent("sparse", "data"), 1.01),
    ];
    row("zeroes", "1 Gbit/s, 10 GiB of 70 % zeroes against its 3 GiB, indexed", cases, checks)
}

fn ipv6() -> Row {
    let group = &["--mcast-rdv-address", "ff15::6330"];
    let options = Peer::Imgcast { sender: group, receiver: group };
    works("ipv6", "IPv6, symbols of 1,376 octets", options)
}

fn plain() -> Row {
    let off = &["--offload", "off"];
    let options = Peer::Imgcast { sender: off, receiver: off };
    works("plain", "both programs without segmentation offload", options)
}

fn works(name: &str, what: &str, options: Peer) -> Row {
    let network = Network::packets(10);
    let cases = vec![peer("imgcast", options, network, Spec::random(1024))];
    row(name, &format!("{what}, 1 receiver, 1 % loss, 1 GiB"), cases, Vec::new())
}

fn row(name: &str, what: &str, cases: Vec<Case>, checks: Vec<Check>) -> Row {
    Row { name: name.to_owned(), what: what.to_owned(), cases, checks }
}

fn case(name: &'static str, network: Network, image: Spec) -> Case {
    peer(name, Peer::IMGCAST, network, image)
}

/// imgcast with an image that has been sent before.
fn indexed(name: &'static str, network: Network, image: Spec) -> Case {
    Case { start: Start::Indexed, ..case(name, network, image) }
}

fn peer(name: &'static str, peer: Peer, network: Network, image: Spec) -> Case {
    Case { name, peer, network, image, start: Start::Unknown }
}

fn raw(network: Network) -> Case {
    // It sends no image; one of 1 MiB costs nothing to make.
    peer("raw", Peer::Raw, network, Spec::random(1))
}

const fn at_least(value: Value, number: f64) -> Check {
    Check { value, bound: Bound::AtLeast(number) }
}

const fn at_most(value: Value, number: f64) -> Check {
    Check { value, bound: Bound::AtMost(number) }
}

fn percent(per_mille: u32) -> String {
    if per_mille == 0 { "no loss".to_owned() } else { format!("{} % loss", per_mille / 10) }
}

const RANDOM_4_GIB: Spec = Spec::random(4096);

/// Its copy, too, has to fit into the memory of a small machine.
const SPARSE: Spec = Spec { mib: 64 << 10, data_mib: 512, on_disk: false };

/// 80 % of the 20 and 2.8 Gbit/s that two cores of the class the targets were set for carry: a
/// machine that carries less does not count.
const RAW_WHOLE_GIGABITS: f64 = 16.0;
const RAW_PACKETS_GIGABITS: f64 = 2.24;
