//! Where S3 requests may go: hosts as somebody allowed them, and never the services that hand out a machine's own keys.

use super::{CredentialSource, Location, StorageOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::lifecycle::glob;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Names under which clouds serve the metadata of a machine. They resolve to reserved addresses too; by name they are
/// refused before anything is asked.
const METADATA_NAMES: &[&str] = &[
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "instance-data",
    "instance-data.ec2.internal",
];

/// The host and port of a URL `http://host:port`, the host in lower case and without brackets or a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads a URL without user, path and query.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let (rest, default_port) = match url.strip_prefix("http://") {
            Some(rest) => (rest, 80),
            None => (url.strip_prefix("https://")?, 443),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = host_and_port(rest)?;
        Some(Self { host, port: port.unwrap_or(default_port) })
    }

    fn of(host: String, port: u16) -> Self {
        Self { host, port }
    }

    /// The address that the host is, in whichever notation the system's resolver takes.
    fn address(&self) -> Option<IpAddr> {
        address(&self.host)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; a bare IPv6 address has no port.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            Ipv6Addr::from_str(host).ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => (Ipv6Addr::from_str(text).ok().map(|_| text)?, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
        None => None,
    };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:*".contains(c);
    (!host.is_empty() && host.chars().all(is_name)).then_some((host, port))
}

fn address(host: &str) -> Option<IpAddr> {
    Ipv6Addr::from_str(host).ok().map(IpAddr::V6).or_else(|| inet_aton(host).map(IpAddr::V4))
}

/// An IPv4 address as resolvers read it: one to four numbers, decimal, octal or hexadecimal, the last filling what is left.
fn inet_aton(host: &str) -> Option<Ipv4Addr> {
    let numbers = host.split('.').map(number).collect::<Option<Vec<u32>>>()?;
    let (last, first) = numbers.split_last()?;
    if first.len() > 3 || first.iter().any(|octet| *octet > 255) {
        return None;
    }
    let bits_left = 32 - 8 * u32::try_from(first.len()).ok()?;
    if u64::from(*last) >= 1u64 << bits_left {
        return None;
    }
    let high = first.iter().fold(0u64, |bits, octet| (bits << 8) | u64::from(*octet));
    u32::try_from((high << bits_left) | u64::from(*last)).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u32> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(if digits.is_empty() { "0" } else { digits }, 16).ok();
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match text.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Whether metadata services live there: link-local addresses, and those that some clouds chose besides.
fn is_reserved(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local() || [[100, 100, 100, 200], [168, 63, 129, 16], [192, 0, 0, 192]].contains(&v4.octets())
        }
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let is_cloud = matches!(segments, [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..]);
            is_cloud || segments[0] & 0xffc0 == 0xfe80 || embedded(v6).is_some_and(|v4| is_reserved(IpAddr::V4(v4)))
        }
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64, 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(of(high, low)),
        [0x64, 0xff9b, _, _, _, _, high, low] | [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// Which endpoints storages may have: patterns `host` or `host:port`, `*` standing for any part of the host. Without any,
/// every host. Metadata services are never among them unless an entry without `*` names the very address or host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedEndpoints(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    host: String,
    port: Option<u16>,
}

impl Pattern {
    fn matches(&self, endpoint: &Endpoint) -> bool {
        let same = match (address(&self.host), endpoint.address()) {
            (Some(allowed), Some(asked)) => allowed == asked,
            _ => glob(&self.host, &endpoint.host),
        };
        same && self.port.is_none_or(|port| port == endpoint.port)
    }

    fn names(&self, endpoint: &Endpoint) -> bool {
        !self.host.contains('*') && self.matches(endpoint)
    }
}

impl AllowedEndpoints {
    /// Reads the list, separated by commas.
    pub fn parse(list: &str) -> Result<Self> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let pattern = |entry: &str| match host_and_port(entry) {
            Some((host, port)) => Ok(Pattern { host, port }),
            None => Err(Error::new(ErrorKind::InvalidParameter, format!("invalid endpoint pattern \"{entry}\""))
                .hint("Write host or host:port, separated by commas; * stands for any part of the host.")),
        };
        entries.map(pattern).collect::<Result<_>>().map(Self)
    }

    /// Refuses a storage whose requests would go to a host that is not allowed. No name is resolved.
    pub fn check(&self, options: &StorageOptions) -> Result<()> {
        endpoints(options).iter().try_for_each(|endpoint| self.check_endpoint(endpoint))
    }

    fn check_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        if self.0.iter().any(|pattern| pattern.names(endpoint)) {
            return Ok(());
        }
        if METADATA_NAMES.contains(&endpoint.host.as_str()) || endpoint.address().is_some_and(is_reserved) {
            return Err(metadata(&endpoint.host));
        }
        if self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(endpoint)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotAllowed, format!("endpoint {endpoint} is not allowed"))
            .detail("The setting archive_ext.allowed_endpoints does not name it.")
            .hint("A superuser can add the host to archive_ext.allowed_endpoints."))
    }

    /// Refuses an address that a name resolved to: a name that is allowed may point anywhere.
    pub(super) fn check_address(&self, name: &str, address: IpAddr) -> Result<()> {
        let named = |pattern: &Pattern| self::address(&pattern.host) == Some(address);
        match is_reserved(address) && !self.0.iter().any(named) {
            true => Err(metadata(name).detail(format!("It resolves to {address}, which hands out credentials."))),
            false => Ok(()),
        }
    }
}

fn metadata(host: &str) -> Error {
    Error::new(ErrorKind::NotAllowed, format!("endpoint {host} is a metadata service of a cloud"))
        .detail("Metadata services hand out the credentials of the machine; no storage is there.")
        .hint(
            "Correct the server's option endpoint. A superuser can name the address in archive_ext.allowed_endpoints.",
        )
}

/// The hosts that requests go to: with and without the bucket in front, as `path_style` says.
fn endpoints(options: &StorageOptions) -> Vec<Endpoint> {
    let Location::S3 { bucket, .. } = &options.location else { return Vec::new() };
    let given = options.endpoint.as_deref().and_then(Endpoint::parse);
    let Some(given) = given else { return vec![amazon(options)] };
    let with_bucket = Endpoint::of(format!("{}.{}", bucket.to_ascii_lowercase(), given.host), given.port);
    // A bucket may be named such that with the host it is an address.
    match !options.path_style && with_bucket.address().is_some() {
        true => vec![given, with_bucket],
        false => vec![given],
    }
}

/// The host of Amazon's S3 in the storage's region; the bucket in front of it is not part of what is allowed.
fn amazon(options: &StorageOptions) -> Endpoint {
    let region = options.region_used(options.credentials == CredentialSource::Environment).to_ascii_lowercase();
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    Endpoint::of(format!("s3.{region}.{domain}"), 443)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(more: &[(&str, &str)]) -> StorageOptions {
        let options = [("location", "s3://bucket/x"), ("region", "eu-west-1")];
        StorageOptions::parse(options.into_iter().chain(more.iter().copied())).unwrap()
    }

    fn check(allowed: &str, endpoint: &str) -> Result<()> {
        AllowedEndpoints::parse(allowed).unwrap().check(&storage(&[("endpoint", endpoint)]))
    }

    #[test]
    fn metadata_services_are_refused_however_they_are_written() {
        for host in [
            "169.254.169.254",
            "169.254.169.254.",
            "169.254.170.2:80",
            "169.254.0.1",
            "2852039166",
            "0xa9fea9fe",
            "0xA9.0xFE.0xA9.0xFE",
            "0251.0376.0251.0376",
            "169.254.43518",
            "169.16689662",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]:8080",
            "[::a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "[fd00:ec2::254]",
            "[fd00:0ec2:0:0:0:0:0:23]",
            "[fd20:ce::254]",
            "[fe80::1]",
            "100.100.100.200",
            "168.63.129.16",
            "metadata.google.internal",
            "Metadata.Google.Internal.",
            "metadata",
            "instance-data.ec2.internal",
        ] {
            for scheme in ["http", "https"] {
                let error = check("", &format!("{scheme}://{host}")).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotAllowed, "{host}");
                assert!(check("*", &format!("{scheme}://{host}")).is_err(), "{host}: * stands for no metadata service");
            }
        }
    }

    #[test]
    fn every_other_host_is_allowed_while_nothing_is_listed() {
        for host in ["127.0.0.1:9000", "[::1]:9000", "s3.example.com", "10.1.2.3", "169.253.1.1", "minio", "1.2"] {
            assert!(check("", &format!("http://{host}")).is_ok(), "{host}");
        }
        assert!(AllowedEndpoints::default().check(&storage(&[])).is_ok());
    }

    #[test]
    fn only_what_is_listed_is_allowed() {
        let list = "*.example.com, minio:9000, [::1]:9000 ,127.0.0.1";
        for host in
            ["a.example.com", "B.Example.COM.", "minio:9000", "[::1]:9000", "127.0.0.1:1", "0x7f.1", "2130706433"]
        {
            assert!(check(list, &format!("http://{host}")).is_ok(), "{host}");
        }
        for host in
            ["example.com", "a.example.com.evil.org", "minio", "minio:9001", "[::1]", "127.0.0.2", "xminio:9000"]
        {
            let error = check(list, &format!("http://{host}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotAllowed, "{host}");
            assert!(error.hint_text().unwrap().contains("archive_ext.allowed_endpoints"));
        }
        assert!(check("minio:443", "https://minio").is_ok());
        assert!(check("minio:443", "http://minio").is_err());
    }

    #[test]
    fn without_an_endpoint_the_host_is_amazons() {
        let allowed = |list: &str, region: &str| {
            let options = StorageOptions::parse([("location", "s3://bucket/x"), ("region", region)]).unwrap();
            AllowedEndpoints::parse(list).unwrap().check(&options).is_ok()
        };
        assert!(allowed("*.amazonaws.com", "eu-west-1"));
        assert!(allowed("s3.eu-west-1.amazonaws.com", "eu-west-1"));
        assert!(!allowed("s3.eu-west-1.amazonaws.com", "us-east-1"));
        assert!(!allowed("*.amazonaws.com", "cn-north-1"));
        assert!(allowed("*.amazonaws.com.cn", "cn-north-1"));
    }

    #[test]
    fn an_entry_can_name_a_metadata_address_on_purpose() {
        assert!(check("169.254.10.5", "http://169.254.10.5:9000").is_ok());
        assert!(check("169.254.10.5", "http://169.254.10.6").is_err());
        let allowed = AllowedEndpoints::parse("169.254.10.5,minio").unwrap();
        assert!(allowed.check_address("minio", "169.254.10.5".parse().unwrap()).is_ok());
    }

    #[test]
    fn names_are_checked_again_once_they_are_resolved() {
        let allowed = AllowedEndpoints::parse("minio").unwrap();
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"] {
            let error = allowed.check_address("minio", address.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotAllowed, "{address}");
        }
        assert!(allowed.check_address("minio", "10.0.0.1".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_bucket_cannot_make_an_address_of_a_host() {
        for (bucket, host) in [("169.254", "169.254"), ("169.254.169", "254"), ("0xa9", "0xfe.0xa9fe")] {
            let (location, endpoint) = (format!("s3://{bucket}/x"), format!("http://{host}"));
            let options = [("location", location.as_str()), ("endpoint", &endpoint), ("path_style", "false")];
            let error = AllowedEndpoints::default().check(&StorageOptions::parse(options).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotAllowed, "{bucket}.{host}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for list in
            ["http://minio", "minio:port", "minio:0", "minio:70000", "a/b", "user@host", "[::1", "[x]:1", "::1:9:x"]
        {
            let error = AllowedEndpoints::parse(list).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{list}");
        }
        assert_eq!(AllowedEndpoints::parse(" , ").unwrap(), AllowedEndpoints::default());
    }
}
