//! Which addresses a gateway may have. A name leads wherever its owner points it, so what it resolves to is judged, not the
//! name: without this, whoever owns a gateway's name could make the broker POST into the broker's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), bits)
}

/// Blocks that are not of the public Internet: the IANA IPv4 Special-Purpose Address Registry, multicast (RFC 5771) and
/// class E (RFC 1112).
const CLOSED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 31, 196, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// Of IPv6 only global unicast is public at all (RFC 4291 section 2.4).
const OPEN_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// And within it these are not: protocol assignments with Teredo, documentation, 6to4, segment routing.
const CLOSED_V6: [Ipv6Net; 4] =
    [v6(0x2001, 0, 0, 23), v6(0x2001, 0xdb8, 0, 32), v6(0x2002, 0, 0, 16), v6(0x3fff, 0, 0, 20)];

/// What carries an IPv4 address in its last 32 bits for a translator to reach (RFC 6052).
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// The address that is really reached: one that is wrapped into IPv6 is unwrapped.
fn meant(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(inner) if NAT64.contains(&inner) => {
            let [.., a, b, c, d] = inner.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        other => other,
    }
}

/// Whether an outlet with these allowed ranges may connect there.
pub fn may_call(address: IpAddr, allowed: &[IpNet]) -> bool {
    let address = meant(address);
    let public = match address {
        IpAddr::V4(v4) => !CLOSED_V4.iter().any(|block| block.contains(&v4)),
        IpAddr::V6(v6) => OPEN_V6.contains(&v6) && !CLOSED_V6.iter().any(|block| block.contains(&v6)),
    };
    public || allowed.iter().any(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, allowed: &[&str], may: bool) {
        let allowed: Vec<IpNet> = allowed.iter().map(|range| range.parse().unwrap()).collect();
        assert_eq!(may_call(address.parse().unwrap(), &allowed), may, "{address} with {allowed:?}");
    }

    #[test]
    fn public_addresses_may_be_called() {
        for address in
            ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1"]
        {
            check(address, &[], true);
        }
        for address in ["2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            check(address, &[], true);
        }
    }

    #[test]
    fn whatever_leads_into_a_private_place_is_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            check(address, &[], false);
            check(&format!("::ffff:{address}"), &[], false);
            check(&format!("64:ff9b::{address}"), &[], false);
        }
        for address in [
            "::",
            "::1",
            "::7f00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:c0a8:1::1",
            "100::1",
            "64:ff9b:1::1",
            "4000::1",
            "3fff::1",
        ] {
            check(address, &[], false);
        }
    }

    #[test]
    fn what_the_configuration_allows_may_be_called_and_nothing_beside_it() {
        check("10.1.2.3", &["10.1.0.0/16"], true);
        check("::ffff:10.1.2.3", &["10.1.0.0/16"], true);
        check("10.2.2.3", &["10.1.0.0/16"], false);
        check("127.0.0.1", &["127.0.0.1/32"], true);
        check("127.0.0.2", &["127.0.0.1/32"], false);
        check("::1", &["127.0.0.0/8"], false);
        check("fd00::5", &["::1/128", "fd00::/8"], true);
    }
}
