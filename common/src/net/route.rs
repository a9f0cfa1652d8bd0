//! Which interfaces hold a default route, as /proc/net tells it for this network namespace.

use std::fs;

use super::interface::Family;

/// Names of the interfaces that hold a default route of the family, each once.
///
/// Without /proc there is none: then the operator has to name the interface.
pub(super) fn default_route_interfaces(family: Family) -> Vec<String> {
    match family {
        Family::V4 => parse_v4(&fs::read_to_string("/proc/net/route").unwrap_or_default()),
        Family::V6 => parse_v6(&fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default()),
    }
}

/// Columns of /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask …
fn parse_v4(table: &str) -> Vec<String> {
    names(table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_default = columns.get(1) == Some(&V4_ANY) && columns.get(7) == Some(&V4_ANY);
        if is_default { columns.first().copied() } else { None }
    }))
}

/// Columns of /proc/net/ipv6_route: destination, prefix length, source, its length, next hop,
/// metric, references, use, flags, interface. The kernel's own "unreachable" default is on `lo`.
fn parse_v6(table: &str) -> Vec<String> {
    names(table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_default = columns.first() == Some(&V6_ANY) && columns.get(1) == Some(&"00");
        columns.get(9).copied().filter(|name| is_default && *name != "lo")
    }))
}

fn names<'a>(found: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = found.map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

const V4_ANY: &str = "00000000";
const V6_ANY: &str = "00000000000000000000000000000000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_default_route_is_told_from_other_routes() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                     eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t020200C0\t0003\t0\t0\t9\t00000000\t0\t0\t0\n\
                     tun0\t00000000\t00000000\t0003\t0\t0\t0\t00000080\t0\t0\t0\n";
        assert_eq!(parse_v4(table), ["eth0"]);
    }

    #[test]
    fn an_ipv6_default_route_is_told_from_prefixes_and_from_the_reject_route() {
        let any = V6_ANY;
        let table = format!(
            "fd000000000000000000000000000000 40 {any} 00 {any} 00000100 1 0 00000001     eth1\n\
             {any} 00 {any} 00 fd000000000000000000000000000001 00000400 2 0 00000003     eth0\n\
             {any} 00 {any} 00 {any} ffffffff 1 0 00200200       lo\n"
        );
        assert_eq!(parse_v6(&table), ["eth0"]);
    }

    #[test]
    fn a_torn_table_names_nothing() {
        assert!(parse_v4("eth0 00000000\n\n x").is_empty());
        assert!(parse_v6(&format!("{V6_ANY} 00 {V6_ANY}\n")).is_empty());
    }
}
