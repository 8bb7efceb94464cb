//! Names to addresses, less those that no storage may have.

use crate::error::Error;
use crate::store::AllowedEndpoints;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use std::net::{IpAddr, ToSocketAddrs};

/// The system's resolver; a name with one reserved address is refused, for the other may be gone at the next look.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    allowed: AllowedEndpoints,
}

impl Resolver {
    pub(super) fn new(allowed: AllowedEndpoints) -> Self {
        Self { allowed }
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveDnsError> {
        let asked = name.to_owned();
        let lookup =
            move || (asked.as_str(), 0).to_socket_addrs().map(|found| found.map(|one| one.ip()).collect::<Vec<_>>());
        let found =
            tokio::task::spawn_blocking(lookup).await.map_err(ResolveDnsError::new)?.map_err(ResolveDnsError::new)?;
        for address in &found {
            self.allowed.check_address(name, *address).map_err(|error| ResolveDnsError::new(Refused(error)))?;
        }
        Ok(found)
    }
}

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(self.resolve(name))
    }
}

/// Marks a refusal of ours among the causes of a failed request.
#[derive(Debug)]
pub(super) struct Refused(Error);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.message())?;
        self.0.detail_text().map_or(Ok(()), |detail| write!(f, " ({})", detail.trim_end_matches('.')))
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[tokio::test]
    async fn reserved_addresses_are_refused_and_others_found() {
        let resolver = Resolver::new(AllowedEndpoints::default());
        assert!(resolver.resolve("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        // As names, they are what a name could resolve to.
        for name in ["169.254.169.254", "2852039166", "fd00:ec2::254"] {
            let error = resolver.resolve(name).await.unwrap_err();
            assert!(error.source().is_some_and(|cause| cause.is::<Refused>()), "{name}: {error:?}");
        }
        assert!(resolver.resolve("no-such-host.invalid").await.is_err());
    }
}
