//! Reading by lifecycle: `archive_ext.data_partition` limits which partitions of managed tables are read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

use archive_core::lifecycle::Selection;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use crate::catalog;
use crate::catalog::reading::Labelled;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::limited_plans::{Change, Limit};
use crate::pg::{guc as settings, relcache, server_text};

/// Leaves that EXPLAIN names; of more it says how many.
const NAMED: usize = 50;

/// What the planner asks.
pub const LIMIT: Limit = Limit { is_set, leaves_out, check_change, note };

/// What was found out while none of the relations changed.
#[derive(Default)]
struct Known {
    generation: u64,
    roots: HashMap<pg_sys::Oid, Option<pg_sys::Oid>>,
    trees: HashMap<pg_sys::Oid, Option<Rc<Labelled>>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known::default());
    static SELECTION: RefCell<Option<(String, Rc<Selection>)>> = const { RefCell::new(None) };
}

fn is_set() -> bool {
    guc::has_data_partition() && !settings::wants_every_row()
}

fn selection() -> Result<Rc<Selection>> {
    let text = guc::data_partition();
    let known = SELECTION
        .with_borrow(|known| known.as_ref().filter(|(of, _)| *of == text).map(|(_, selection)| Rc::clone(selection)));
    if let Some(selection) = known {
        return Ok(selection);
    }
    let selection = Rc::new(Selection::parse(&text)?);
    SELECTION.set(Some((text, Rc::clone(&selection))));
    Ok(selection)
}

/// Whether `relation` is a leaf that the session does not read.
fn leaves_out(relation: pg_sys::Oid) -> Result<bool> {
    if !relcache::is_partition(relation) {
        return Ok(false);
    }
    let Some(tree) = tree_of(relation)? else { return Ok(false) };
    let (selection, Some(labels)) = (selection()?, tree.leaves.get(&relation)) else { return Ok(false) };
    Ok(match selection.patterns(&tree.schema, &tree.table) {
        // The archive was asked for by its name; only who names archived partitions wants a part of it.
        Some(patterns) if tree.archived && !patterns.names_archive() => false,
        Some(patterns) => !labels.iter().any(|label| patterns.matches(label)),
        None => false,
    })
}

/// Refuses (55000) to change rows of a table of which only a part is read.
fn check_change(target: pg_sys::Oid, change: Change) -> Result<()> {
    if guc::data_partition_dml() {
        return Ok(());
    }
    let Some(tree) = tree_of(target)? else { return Ok(()) };
    if tree.archived || selection()?.patterns(&tree.schema, &tree.table).is_none() {
        return Ok(());
    }
    let verb = match change {
        Change::Update => "update",
        Change::Delete => "delete from",
        Change::Merge => "merge into",
    };
    let name = relcache::name(target).unwrap_or_else(|| tree.table.clone());
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("cannot {verb} table \"{name}\" while archive_ext.data_partition limits what is read of it"),
    )
    .detail(format!("It is \"{}\": rows in other partitions would not be found.", guc::data_partition()))
    .hint(
        "RESET archive_ext.data_partition first, or SET archive_ext.data_partition_dml = on to change only rows in the partitions it names.",
    ))
}

/// `Partitions not read (archive_ext.data_partition): orders_2023_01, orders_2023_02`. Of tables that the user may not read
/// only the number is told.
fn note(left_out: &[pg_sys::Oid]) -> Result<Option<CString>> {
    let visible = |relation: &pg_sys::Oid| relcache::may_select(root_of(*relation).unwrap_or(*relation));
    let names: Vec<_> =
        left_out.iter().filter(|relation| visible(relation)).filter_map(|r| relcache::name(*r)).collect();
    let named: Vec<_> = names.iter().take(NAMED).map(quote_identifier).collect();
    let more = left_out.len() - named.len();
    let list = match (named.is_empty(), more) {
        (false, 0) => named.join(", "),
        (false, more) => format!("{} and {more} more", named.join(", ")),
        (true, more) => more.to_string(),
    };
    let text = server_text::message(format!("Partitions not read (archive_ext.data_partition): {list}"));
    Ok(CString::new(text).ok())
}

fn known<T>(find: impl FnOnce(&Known) -> Option<T>) -> Option<T> {
    KNOWN.with_borrow_mut(|known| {
        let generation = relcache::generation();
        if known.generation != generation {
            *known = Known { generation, ..Known::default() };
        }
        find(known)
    })
}

/// Remembers, unless something changed since `generation`.
fn remember(generation: u64, note: impl FnOnce(&mut Known)) {
    KNOWN.with_borrow_mut(|known| {
        if known.generation == generation && relcache::generation() == generation {
            note(known);
        }
    });
}

fn root_of(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    if let Some(root) = known(|known| known.roots.get(&relation).copied()) {
        return root;
    }
    relcache::watch(relation);
    let generation = relcache::generation();
    let root = relcache::partition_root(relation);
    remember(generation, |known| {
        known.roots.insert(relation, root);
    });
    root
}

/// The labelled partitions of the tree that a relation belongs to; `None` when no limit applies to it.
fn tree_of(relation: pg_sys::Oid) -> Result<Option<Rc<Labelled>>> {
    let Some(root) = root_of(relation) else { return Ok(None) };
    if let Some(tree) = known(|known| known.trees.get(&root).cloned()) {
        return Ok(tree);
    }
    // The library may be loaded where the extension is not.
    if !relcache::has_extension(c"archive_ext") {
        return Ok(None);
    }
    relcache::watch(root);
    let generation = relcache::generation();
    let tree = catalog::reading::labelled(root)?.map(Rc::new);
    let relations = tree.iter().flat_map(|tree| tree.relations.iter().copied());
    relations.for_each(relcache::watch);
    // While parallel workers run, what was read is of the query's snapshot, which may be an old one.
    if !crate::pg::xact::is_parallel() {
        remember(generation, |known| {
            known.trees.insert(root, tree.clone());
        });
    }
    Ok(tree)
}

/// The status or label of partition `relation` changed, or those of a table's partitions count from now on: plans that
/// were made before must not be used again, in no session.
pub fn changed(relation: pg_sys::Oid) {
    relcache::invalidate(relation);
    if let Some(root) = relcache::partition_root(relation) {
        relcache::invalidate(root);
    }
}
