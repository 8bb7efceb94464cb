//! The local copy of an archived partition against what was archived.

use archive_core::codec::{Digest, RowHasher};
use archive_core::schema::TableSchema;
use pgrx::pg_sys;

use super::check::Checker;
use crate::catalog;
use crate::catalog::archived::Subject;
use crate::engine::rewrite;
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource};
use crate::pg::columns;
use crate::pg::datum::ColumnIo;
use crate::pg::guc::GucNest;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::row::Row;
use crate::pg::scan::TableScan;
use crate::pg::snapshot::LatestSnapshot;

/// How the rows of the local copy differ from those that were archived, by their digests; `None` when they are equal.
pub(super) fn compare_digests(
    subject: &Subject,
    checker: &Checker<'_>,
    local_copy: pg_sys::Oid,
) -> Result<Option<String>> {
    let source = match source(local_copy, &checker.schema)? {
        Ok(source) => source,
        Err(why) => return Ok(Some(why)),
    };
    let digests = export::digests(&source, &[export::EVERYWHERE], &mut |_, _| ())?;
    let Some(local) = digests.into_iter().next() else { return Ok(None) };
    let archived = archived_digest(subject, checker)?;
    Ok((local != archived).then(|| difference(&checker.schema, &local, &archived)))
}

/// The digest of the archived rows. Labels of enums may have other names than they were hashed with: then the rows are hashed anew.
fn archived_digest(subject: &Subject, checker: &Checker<'_>) -> Result<Digest> {
    let Some(source) = checker.source() else { return Ok(subject.digest.clone()) };
    if catalog::enums::are_as_archived(&checker.schema.enums)? {
        return Ok(subject.digest.clone());
    }
    let mut hasher = RowHasher::new(&checker.schema);
    for stored in &checker.objects {
        rewrite::rows(source, &checker.store, &checker.schema, &stored.object, &mut |_, _, row| {
            export::hash_row(source, &mut hasher, &row.row())
        })?;
    }
    Ok(hasher.digest())
}

/// Where the local copy first differs from what is archived, row by row in the order of both.
pub(super) fn compare_rows(subject: &Subject, checker: &Checker<'_>) -> Result<Option<String>> {
    let Some(local_copy) = subject.local_copy else { return Ok(None) };
    let Some(archived) = checker.source() else { return Ok(None) };
    let local = match source(local_copy, &checker.schema)? {
        Ok(source) => source,
        Err(why) => return Ok(Some(why)),
    };
    let snapshot = LatestSnapshot::take();
    let mut scan = TableScan::begin(&local.relation, &snapshot);
    let (mut rows, mut differs) = (0_u64, None);
    for stored in &checker.objects {
        rewrite::rows(archived, &checker.store, &checker.schema, &stored.object, &mut |_, _, row| {
            if differs.is_none() {
                rows += 1;
                differs = one_row(&local, archived, &mut scan, &row.row())?.map(|what| format!("row {rows} {what}"));
            }
            Ok(())
        })?;
        if differs.is_some() {
            return Ok(differs);
        }
    }
    Ok(scan.next_row(|_| ()).map(|()| "the local copy has rows that the archive lacks".to_owned()))
}

fn one_row(
    local: &ExportSource,
    archived: &ExportSource,
    scan: &mut TableScan<'_>,
    row: &Row<'_>,
) -> Result<Option<String>> {
    let compared = scan.next_row(|here| -> Result<Option<usize>> {
        for (column, (io, of_archive)) in local.io.iter().zip(&archived.io).enumerate() {
            if io.read(&here)? != of_archive.read(row)? {
                return Ok(Some(column));
            }
        }
        Ok(None)
    });
    Ok(match compared.transpose()? {
        Some(None) => None,
        Some(Some(column)) => {
            let name = local.columns.get(column).map_or("", |column| column.name.as_str());
            Some(format!("of the archive differs from the local copy's in column \"{name}\", or stands elsewhere"))
        }
        None => Some("of the archive is not in the local copy".to_owned()),
    })
}

/// The local copy with the columns that were archived, which it has by the names of that time; or why it has them no more.
fn source(local_copy: pg_sys::Oid, schema: &TableSchema) -> Result<std::result::Result<ExportSource, String>> {
    let Some(relation) = Relation::open(local_copy, LockMode::AccessShare) else {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the local copy was dropped meanwhile"));
    };
    let _settings = GucNest::new().safe_search_path();
    let mut has = columns::of_relation(&relation);
    let mut ordered = Vec::with_capacity(has.len());
    for field in &schema.fields {
        let Some(at) = has.iter().position(|column| column.name == field.name) else {
            return Ok(Err(format!("the local copy has no column \"{}\" any more", field.name)));
        };
        let column = has.swap_remove(at);
        if !columns::pg_type(&column).is_ok_and(|pg_type| pg_type == field.pg_type) {
            return Ok(Err(format!("column \"{}\" of the local copy has another type", field.name)));
        }
        ordered.push(column);
    }
    if let Some(more) = has.first() {
        return Ok(Err(format!("column \"{}\" of the local copy was not archived", more.name)));
    }
    let io = ordered.iter().zip(&schema.fields).map(|(column, field)| ColumnIo::new(column, &field.pg_type)).collect();
    Ok(Ok(ExportSource { relation, columns: ordered, schema: schema.clone(), io, key_fields: Vec::new() }))
}

/// What differs between rows and those that were archived.
pub(super) fn difference(schema: &TableSchema, rows: &Digest, archived: &Digest) -> String {
    if rows.rows != archived.rows {
        return format!("it has {} rows, not {}", rows.rows, archived.rows);
    }
    let columns: Vec<_> = rows
        .differing_columns(archived)
        .iter()
        .filter_map(|id| schema.field(*id))
        .map(|field| format!("\"{}\"", field.name))
        .collect();
    match columns.is_empty() {
        true => "its rows differ from those archived: values of one row are in another".to_owned(),
        false => format!("its rows differ from those archived, in column {}", columns.join(", ")),
    }
}
