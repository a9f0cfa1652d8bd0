//! The same over IPv6, in a network namespace of this user's own: loopback as it comes takes no
//! IPv6 groups.

use imgcast_tests::machine::is_in_namespace;

use crate::stage::{BLOCK, DEADLINE, Stage, assert_holds, random};

#[test]
fn a_session_over_ipv6_works() {
    let name = "ipv6::a_session_over_ipv6_works";
    if !is_in_namespace(name, "ip -6 route add local ff00::/8 dev lo table local") {
        return;
    }
    let stage = Stage::new();
    let octets = random(3 * BLOCK + 5);
    let group = ["--mcast-rdv-address", "ff15::6330"];
    let options = [&group[..], &["--min-receivers", "3"]].concat();
    let mut sender = stage.send(&stage.image("image", &octets), &options);
    let mut receivers = [
        stage.receive("whole", &group),
        stage.receive("lossy", &[&group[..], &["--drop", "5%"]].concat()),
        stage.receive("asking", &["--mcast-rdv-address", "::1"]),
    ];
    for receiver in &mut receivers {
        receiver.succeed(DEADLINE);
    }
    sender.succeed(DEADLINE);
    for name in ["whole", "lossy", "asking"] {
        assert_holds(&stage.output(name), &octets);
    }
}
