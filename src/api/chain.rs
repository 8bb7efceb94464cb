//! `verify_chain`.

use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::chain::{self, Options};
use crate::error::OrRaise;
use crate::pg::args::{Name, Text};

/// Compares the manifests of a storage with the chain that they are, one row for each that is altered, missing or not signed.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn verify_chain(
    storage: Name,
    public_keys: default!(Option<Vec<Option<String>>>, "NULL"),
) -> TableIterator<'static, (name!(key, Text), name!(problem, String), name!(detail, Text))> {
    let given = public_keys.into_iter().flatten().flatten();
    let public_keys = chain::public_keys(given.collect()).or_raise();
    let findings = chain::verify(&Options { storage: storage.0, public_keys }).or_raise();
    TableIterator::new(
        findings.into_iter().map(|found| (Text(found.key), found.problem.as_str().to_owned(), Text(found.detail))),
    )
}
