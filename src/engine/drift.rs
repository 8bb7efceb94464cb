//! The archive follows the hot table: its columns, owner, privileges and row security.
//!
//! A column keeps its field id for life. While the hot table is the same relation, attribute numbers tell which column is
//! which; after a dump and restore, which numbers them anew, names do.

use std::cell::RefCell;

use pgrx::pg_sys;

use crate::catalog;
use crate::catalog::column_map::{self, ColumnMap, Fill, MappedColumn, TypeStep};
use crate::catalog::managed_table::{self, ManagedTable};
use crate::error::{Error, Result, SqlState};
use crate::partition::archive_tree::{self, ArchiveNames};
use crate::partition::discover::{self, Attribute};
use crate::partition::{access, all_view, locks, mirror, swap};
use crate::pg::event_trigger::{Alterations, Privileges, Using};
use crate::pg::relation::{LockMode, Relation};
use crate::pg::row_expr::{self, AddedDefault};
use crate::pg::{clock, user};

/// What is known about how the columns changed.
#[derive(Debug, Default)]
pub struct Witness<'a> {
    /// The ALTER TABLE that just ran; `None` when nobody saw it.
    statement: Option<&'a Alterations>,
}

/// Before ALTER TABLE: the view over hot and archive lets go of columns that are about to be dropped or retyped.
///
/// Locks: ACCESS EXCLUSIVE on the view and, as the command is about to, on the table; both or none, since transactions lock them in
/// either order.
pub fn make_way(alterations: &Alterations) -> Result<()> {
    if !alterations.reshapes {
        return Ok(());
    }
    match settled(alterations.table)? {
        Some(view) if alterations.hindered_by_views => all_view::hollow(view),
        _ => Ok(()),
    }
}

/// Before a rename: the same locks, and nothing to let go.
pub fn make_way_for_name(table: Option<pg_sys::Oid>) -> Result<()> {
    settled(table).map(drop)
}

/// Locks the view of a managed table, and makes sure that the attribute numbers in the map are those of this relation,
/// not of the one that was dumped: names still tell, and after the change they would not.
fn settled(table: Option<pg_sys::Oid>) -> Result<Option<pg_sys::Oid>> {
    let Some((source, managed)) = managed(table)? else { return Ok(None) };
    // ALTER TABLE has not checked that yet, and a stranger must not hold readers up.
    if !user::has_privileges_of(discover::owner(source)?) {
        return Ok(None);
    }
    if let Some(view) = managed.all_view {
        locks::acquire_all_for_command(&[(view, LockMode::AccessExclusive), (source, LockMode::AccessExclusive)])?;
    }
    let root = column_map::identity(source);
    let foreign = |column: &MappedColumn| column.name.is_some() && column.root != root;
    let map = column_map::load(managed.id)?;
    // An imported archive has no map yet.
    if map.is_empty() || map.columns.iter().any(foreign) {
        sync_managed(source, &managed, &Witness::default())?;
        return Ok(managed_table::of_source(source)?.and_then(|managed| managed.all_view));
    }
    Ok(managed.all_view)
}

/// After ALTER TABLE.
pub fn follow(alterations: &Alterations) -> Result<()> {
    match managed(alterations.table)? {
        Some((source, managed)) if alterations.reshapes => {
            sync_managed(source, &managed, &Witness { statement: Some(alterations) })
        }
        _ => Ok(()),
    }
}

/// After a rename of the table or a column, or a move to another schema.
pub fn follow_name(table: Option<pg_sys::Oid>) -> Result<()> {
    table.map_or(Ok(()), sync)
}

thread_local! {
    /// Who could read the tables of the GRANT or REVOKE that is running.
    static READERS: RefCell<Vec<(pg_sys::Oid, Vec<pg_sys::Oid>)>> = const { RefCell::new(Vec::new()) };
}

fn managed_among(privileges: &Privileges) -> Result<Vec<(pg_sys::Oid, ManagedTable)>> {
    let mut tables = privileges.tables.clone();
    if !privileges.schemas.is_empty() {
        tables.extend(managed_table::sources_in(&privileges.schemas)?);
    }
    let mut found = Vec::new();
    for table in tables {
        found.extend(managed_table::of_source(table)?.map(|managed| (table, managed)));
    }
    Ok(found)
}

/// Before GRANT or REVOKE: REVOKE … CASCADE takes more roles' grants than it names.
pub fn note_readers(privileges: &Privileges) -> Result<()> {
    let tables = managed_among(privileges)?;
    let readers = tables.into_iter().map(|(table, _)| Ok((table, access::readers(table)?))).collect::<Result<_>>()?;
    READERS.replace(readers);
    Ok(())
}

/// After GRANT or REVOKE.
pub fn follow_privileges(privileges: &Privileges) -> Result<()> {
    let before = READERS.take();
    for (table, managed) in managed_among(privileges)? {
        let now = access::readers(table)?;
        let earlier = before.iter().find(|(noted, _)| *noted == table).map(|(_, readers)| readers.as_slice());
        let lost = earlier.unwrap_or_default().iter().filter(|role| !now.contains(role));
        let roles: Vec<_> = privileges.roles.iter().chain(lost).copied().collect();
        access::mirror_grants(table, &managed, &roles)?;
    }
    Ok(())
}

/// After a policy was made, changed or dropped.
pub fn follow_policies(tables: &[pg_sys::Oid]) -> Result<()> {
    tables.iter().try_for_each(|table| match managed_table::of_source(*table)? {
        Some(managed) => access::mirror_row_security(*table, &managed),
        None => Ok(()),
    })
}

/// After a drop that took something of a managed table along. A hot table that is gone leaves its archive behind; runs that were
/// interrupted end with what they were about.
pub fn follow_drops() -> Result<()> {
    for (source, exists) in managed_table::touched_by_drop()? {
        if exists {
            sync(source)?;
        } else {
            orphaned(source)?;
        }
    }
    catalog::job::end_dropped()
}

fn orphaned(source: pg_sys::Oid) -> Result<()> {
    let Some(managed) = managed_table::of_source(source)? else { return Ok(()) };
    if let Some(archive) = managed.archive_table {
        let name = catalog::qualified_name(archive)?;
        crate::pg::server_text::notice!("the archived partitions of the dropped table stay in {name}");
    }
    Ok(())
}

fn managed(table: Option<pg_sys::Oid>) -> Result<Option<(pg_sys::Oid, ManagedTable)>> {
    let Some(table) = table else { return Ok(None) };
    Ok(managed_table::of_source(table)?.map(|managed| (table, managed)))
}

/// Brings column map, archive parent and view in step with the hot table. Without changes it only looks.
///
/// Locks: ACCESS SHARE on the table meanwhile. An ALTER TABLE that committed between two looks would seem half followed.
pub fn sync(source: pg_sys::Oid) -> Result<()> {
    if managed_table::of_source(source)?.is_none() {
        return Ok(());
    }
    let _still = locks::hold_still(source)?;
    match managed_table::of_source(source)? {
        Some(managed) => sync_managed(source, &managed, &Witness::default()),
        None => Ok(()),
    }
}

/// Fills the column map of a managed table that has none yet. Done with the freeze, whose transaction is short: rows that an
/// export's transaction wrote would have every other run of the table wait for its end.
pub fn note_columns(source: pg_sys::Oid) -> Result<()> {
    match managed_table::of_source(source)? {
        Some(managed) if column_map::load(managed.id)?.is_empty() => {
            let _still = locks::hold_still(source)?;
            let _bounded = swap::bounded();
            register(source, &managed, &discover::attributes(source)?)
        }
        _ => Ok(()),
    }
}

/// [`sync`] for an imported table: it gets the column map that its newest manifest recorded, unless it has one.
pub fn adopt(source: pg_sys::Oid, columns: &[MappedColumn]) -> Result<()> {
    let Some(managed) = managed_table::of_source(source)? else { return Ok(()) };
    if column_map::load(managed.id)?.is_empty() {
        column_map::adopt(managed.id, columns)?;
    }
    sync_managed(source, &managed, &Witness::default())
}

fn sync_managed(source: pg_sys::Oid, managed: &ManagedTable, witness: &Witness<'_>) -> Result<()> {
    let hot = discover::attributes(source)?;
    let before = column_map::load(managed.id)?;
    let changes = if before.is_empty() {
        register(source, managed, &hot)?;
        mirror::Changes::default()
    } else {
        remap(source, managed, &hot, &before, witness)?
    };
    let Some(archive) = managed.archive_table else { return Ok(()) };
    access::mirror_owner(source, managed)?;
    // Policies that are gone hold on to columns that are gone; those that stay must find theirs.
    access::drop_stale_policies(source, archive)?;
    shape_archive(source, archive, managed, &changes)?;
    access::mirror_row_security(source, managed)
}

/// The archive parent and the view get the hot table's columns.
fn shape_archive(
    source: pg_sys::Oid,
    archive: pg_sys::Oid,
    managed: &ManagedTable,
    changes: &mirror::Changes,
) -> Result<()> {
    let owner = discover::owner(source)?;
    if let Some(view) = managed.all_view.filter(|_| retypes_or_drops(source, archive, changes).unwrap_or(true)) {
        all_view::hollow(view)?;
    }
    mirror::columns(source, archive, changes)?;
    let view = match managed.all_view {
        Some(view) if !all_view::allowed(source)? => {
            all_view::drop_for_row_security(view)?;
            None
        }
        Some(view) => Some(all_view::rebuild(source, archive, view, changes)?),
        None => {
            let names = ArchiveNames::existing(managed)?;
            archive_tree::ensure_view(source, archive, None, &names, owner)?
        }
    };
    managed_table::set_archive(managed.id, archive, view)
}

fn retypes_or_drops(source: pg_sys::Oid, archive: pg_sys::Oid, changes: &mirror::Changes) -> Result<bool> {
    let (hot, now) = (discover::attributes(source)?, discover::attributes(archive)?);
    let retyped = |column: &Attribute| now.iter().any(|other| other.name == column.name && !other.same_type(column));
    Ok(!changes.dropped.is_empty() || hot.iter().any(retyped))
}

/// The first archive of a table: a column's field id is its attribute number, or that of the partitions that were
/// archived before the map was lost or imported.
fn register(source: pg_sys::Oid, managed: &ManagedTable, hot: &[Attribute]) -> Result<()> {
    let root = column_map::identity(source);
    let archived = catalog::partition::newest_schema(managed.id)?.unwrap_or_default();
    let mut highest = catalog::partition::highest_field(managed.id)?;
    for column in hot {
        let known = archived.fields.iter().find(|field| field.name == column.name).map(|field| field.id);
        let field_id = known.unwrap_or_else(|| i32::from(column.number).max(highest + 1));
        let field_id = if archived.fields.is_empty() { i32::from(column.number) } else { field_id };
        highest = highest.max(field_id);
        let fill = if known.is_some() || archived.fields.is_empty() {
            Fill::None
        } else {
            fill(source, column, &Witness::default())?
        };
        column_map::save(managed.id, &mapped(field_id, column, &root, fill))?;
    }
    Ok(())
}

fn mapped(field_id: i32, column: &Attribute, root: &str, fill: Fill) -> MappedColumn {
    MappedColumn {
        field_id,
        name: Some(column.name.clone()),
        former_name: column.name.clone(),
        attnum: Some(column.number.into()),
        root: root.to_owned(),
        types: vec![TypeStep {
            names: vec![column.type_sql.clone()],
            oid: column.type_oid.to_u32(),
            typmod: column.typmod,
            casts: Vec::new(),
            by_expression: false,
            settings: Default::default(),
            since: 0,
        }],
        fill,
    }
}

/// Matches the hot columns with the map and writes what changed.
fn remap(
    source: pg_sys::Oid,
    managed: &ManagedTable,
    hot: &[Attribute],
    before: &ColumnMap,
    witness: &Witness<'_>,
) -> Result<mirror::Changes> {
    let root = column_map::identity(source);
    let mut changes = mirror::Changes::default();
    let mut matched = Vec::new();
    for known in before.columns.iter().filter(|column| column.name.is_some()) {
        let same_relation = known.root == root;
        let found = hot.iter().find(|column| match same_relation {
            true => known.attnum == Some(column.number.into()),
            false => known.name.as_deref() == Some(column.name.as_str()),
        });
        let now = match found {
            Some(column) => {
                matched.push(column.number);
                present(known, column, &root, same_relation, witness)?
            }
            None => MappedColumn { name: None, attnum: None, ..known.clone() },
        };
        note(&mut changes, known, &now);
        if now != *known {
            column_map::save(managed.id, &now)?;
        }
    }
    let mut highest = before.columns.iter().map(|column| column.field_id).max().unwrap_or(0);
    for column in hot.iter().filter(|column| !matched.contains(&column.number)) {
        highest = i32::from(column.number).max(highest + 1);
        let fill = fill(source, column, witness)?;
        column_map::save(managed.id, &mapped(highest, column, &root, fill))?;
    }
    Ok(changes)
}

fn note(changes: &mut mirror::Changes, before: &MappedColumn, now: &MappedColumn) {
    match (&before.name, &now.name) {
        (Some(from), Some(to)) if from != to => changes.renamed.push((from.clone(), to.clone())),
        (Some(name), None) => changes.dropped.push(name.clone()),
        _ => {}
    }
}

/// A column of the map that is still there, perhaps by another name or with another type.
fn present(
    known: &MappedColumn,
    column: &Attribute,
    root: &str,
    same_relation: bool,
    witness: &Witness<'_>,
) -> Result<MappedColumn> {
    let mut now = known.clone();
    now.name = Some(column.name.clone());
    now.former_name.clone_from(&column.name);
    now.attnum = Some(column.number.into());
    root.clone_into(&mut now.root);
    let oid = column.type_oid.to_u32();
    if !same_relation {
        // Types have other OIDs here as well.
        now.types.iter_mut().for_each(|step| step.oid = 0);
    }
    let Some(last) = now.types.last_mut() else { return Ok(now) };
    let same_name = last.names.last() == Some(&column.type_sql);
    if !same_relation && same_name {
        last.oid = oid;
    } else if last.oid == oid && last.typmod == column.typmod && !rewritten(column, witness) {
        if !same_name {
            last.names.push(column.type_sql.clone());
        }
    } else {
        now.types.push(retyped(column, witness)?);
    }
    Ok(now)
}

/// Whether USING gave the rows other values, even of the same type.
fn rewritten(column: &Attribute, witness: &Witness<'_>) -> bool {
    witness.statement.is_some_and(|statement| statement.using.iter().any(|(name, _)| *name == column.name))
}

fn retyped(column: &Attribute, witness: &Witness<'_>) -> Result<TypeStep> {
    let using = witness
        .statement
        .map(|statement| statement.using.iter().find(|(name, _)| *name == column.name).map(|(_, using)| using.clone()));
    let (casts, by_expression) = match using {
        Some(None) => (Vec::new(), false),
        Some(Some(Using::Casts(casts))) => (casts, false),
        // Unseen, it may have been any expression.
        Some(Some(Using::Expression)) | None => (Vec::new(), true),
    };
    Ok(TypeStep {
        names: vec![column.type_sql.clone()],
        oid: column.type_oid.to_u32(),
        typmod: column.typmod,
        casts,
        by_expression,
        settings: column_map::session_settings()?,
        since: clock::now(),
    })
}

/// What ADD COLUMN filled the rows with that were there: what a hot partition kept of it, else the default, evaluated as
/// the owner.
fn fill(source: pg_sys::Oid, column: &Attribute, witness: &Witness<'_>) -> Result<Fill> {
    let (kept, has_rows) = column_map::filled_with(source, &column.name)?;
    if let Some(text) = kept {
        return Ok(Fill::Constant(text));
    }
    if witness.statement.is_some_and(|statement| statement.new_defaults.contains(&column.name)) {
        // The default is another one by now.
        return Ok(if has_rows { Fill::None } else { Fill::Volatile });
    }
    let Some(relation) = Relation::open(source, LockMode::AccessShare) else {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the table was dropped meanwhile"));
    };
    let index = usize::try_from(column.number).unwrap_or_default().saturating_sub(1);
    let default = user::as_user(discover::owner(source)?, || row_expr::added_default(&relation, index));
    Ok(match default {
        AddedDefault::Null => Fill::None,
        AddedDefault::Constant(text) => Fill::Constant(text),
        AddedDefault::PerRow => Fill::Volatile,
        AddedDefault::Generated => Fill::Generated,
    })
}
