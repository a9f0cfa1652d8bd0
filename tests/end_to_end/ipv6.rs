//! The same over IPv6, in a network namespace of this user's own: loopback as it comes takes no
//! IPv6 groups.

use std::process::Command;

use crate::stage::{BLOCK, DEADLINE, Stage, assert_holds, random, skip};

#[test]
fn a_session_over_ipv6_works() {
    let name = "a_session_over_ipv6_works";
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-ec", script]);
        command.arg(std::env::current_exe().unwrap());
        command
    };
    let setup = "ip link set lo up; ip -6 route add local ff00::/8 dev lo table local";
    if !unshared(setup).output().is_ok_and(|output| output.status.success()) {
        return skip(name, "no network namespaces with IPv6 for this user");
    }
    let inside = "ipv6::inside_a_namespace_a_session_over_ipv6_works";
    let script = format!("{setup}; exec \"$0\" --ignored --exact {inside}");
    let output = unshared(&script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "started in a namespace by a_session_over_ipv6_works"]
fn inside_a_namespace_a_session_over_ipv6_works() {
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
