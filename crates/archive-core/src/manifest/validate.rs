//! Whether a manifest agrees with itself.

use std::collections::HashSet;

use super::model::{Manifest, ManifestObject};
use crate::codec::{DIGEST_ALGORITHM, Digest};
use crate::store::validate_key;
use crate::{Error, ErrorKind, Result};

/// Whether digests are of the algorithm that this version computes.
pub(super) fn check_algorithm(name: &str) -> Result<()> {
    if name == DIGEST_ALGORITHM {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("unknown digest algorithm \"{name}\"")).hint(format!(
        "This version of the extension computes \"{DIGEST_ALGORITHM}\". Bring the rows back with the version that archived them."
    )))
}

impl Manifest {
    /// Checks that the parts add up to the totals.
    pub fn validate(&self) -> Result<()> {
        check_algorithm(&self.digest_algorithm)?;
        self.check_schema()?;
        self.check_columns()?;
        self.check_family()?;
        self.check_objects()?;
        self.check_totals()
    }

    fn check_schema(&self) -> Result<()> {
        let mut ids = HashSet::new();
        match self.schema.fields.iter().find(|field| !ids.insert(field.id)) {
            Some(field) => Err(corrupt(format!("field id {} occurs twice", field.id))),
            None => Ok(()),
        }
    }

    fn check_columns(&self) -> Result<()> {
        let mut ids = HashSet::new();
        match self.column_map.iter().find(|column| column.types.is_empty() || !ids.insert(column.field_id)) {
            Some(column) => Err(corrupt(format!("column {} of the map has no type or occurs twice", column.field_id))),
            None => Ok(()),
        }
    }

    fn check_family(&self) -> Result<()> {
        let own = &self.source;
        let Some(family) = &self.family else { return Ok(()) };
        let is_own = |member: &super::FamilyMember| {
            (&member.schema, &member.table) == (&own.schema, &own.table)
                && (&member.partition_schema, &member.partition) == (&own.partition_schema, &own.partition)
        };
        if family.members.iter().any(is_own) {
            return Ok(());
        }
        Err(corrupt(format!("the family \"{}\" lacks the partition itself", family.id)))
    }

    fn check_objects(&self) -> Result<()> {
        let mut keys = HashSet::new();
        for object in &self.objects {
            if !keys.insert(object.key.as_str()) {
                return Err(corrupt(format!("object \"{}\" occurs twice", object.key)));
            }
            self.check_object(object)?;
        }
        Ok(())
    }

    fn check_object(&self, object: &ManifestObject) -> Result<()> {
        object.recorded()?;
        validate_key(&object.key).map_err(|error| corrupt(error.message().to_owned()))?;
        if object.rows != object.digest.rows {
            return Err(corrupt(format!(
                "object \"{}\": the digest counts {} rows, not {}",
                object.key, object.digest.rows, object.rows
            )));
        }
        if object.sha256.len() != 64 || !object.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(corrupt(format!("object \"{}\" has no SHA-256", object.key)));
        }
        let ids = object.null_counts.iter().map(|(id, _)| *id);
        let ids = ids.chain(object.sidecars.iter().copied()).chain(object.ranges.iter().map(|range| range.field_id));
        match ids.into_iter().find(|id| self.schema.field(*id).is_none()) {
            Some(id) => Err(corrupt(format!("object \"{}\" names the unknown field id {id}", object.key))),
            None => Ok(()),
        }
    }

    fn check_totals(&self) -> Result<()> {
        let mut digest = Digest::default();
        let mut bytes = 0u64;
        for object in &self.objects {
            digest.merge(&object.digest);
            bytes = bytes.saturating_add(object.bytes);
        }
        if digest.rows != self.rows || bytes != self.bytes {
            return Err(corrupt(format!(
                "the objects hold {} rows in {bytes} bytes, the totals say {} in {}",
                digest.rows, self.rows, self.bytes
            )));
        }
        if digest != self.digest {
            return Err(corrupt(format!("the objects' digests sum to {digest}, the total says {}", self.digest)));
        }
        Ok(())
    }
}

fn corrupt(reason: String) -> Error {
    Error::new(ErrorKind::Corrupt, "manifest contradicts itself").detail(capitalized(reason))
}

fn capitalized(mut reason: String) -> String {
    if let Some(first) = reason.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    reason.push('.');
    reason
}
