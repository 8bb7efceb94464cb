//! Plans of statements on our own catalog, kept from their second run in a backend on: planning takes longer than running most of them.
//!
//! PostgreSQL makes a kept plan anew when what it is about, or the search path, has changed.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::ManuallyDrop;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{Oid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, PreparedStatement, SpiResult};

/// Plans that are kept at most.
const KEPT: usize = 256;
/// Statements that are known to have run once at most.
const SEEN: usize = 4096;

/// A plan is never freed: the backend's end may be too late for that.
type Plan = Rc<ManuallyDrop<OwnedPreparedStatement>>;

struct Kept {
    sql: String,
    types: Vec<Oid>,
    writes: bool,
    plan: Plan,
}

#[derive(Default)]
struct Plans {
    seen: HashSet<u64>,
    kept: HashMap<u64, Kept>,
}

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::default();
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

/// While it lives plans are kept, or are not: those of statements with names of users' tables in them would be too many.
#[derive(Debug)]
pub struct Keeping {
    before: bool,
}

impl Keeping {
    /// Begins to keep plans, or not to.
    pub fn begin(keeps: bool) -> Self {
        Self { before: KEEPS.replace(keeps) }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        KEEPS.set(self.before);
    }
}

/// The plan of a statement that ran before with arguments of these types, to read or to write; `None` where none is kept. `prepare`
/// makes it.
pub(super) fn find<'conn>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    writes: bool,
    prepare: impl FnOnce(&[PgOid]) -> SpiResult<PreparedStatement<'conn>>,
) -> SpiResult<Option<Plan>> {
    if !KEEPS.get() || !is_planned(sql) {
        return Ok(None);
    }
    let types: Vec<Oid> = args.iter().map(DatumWithOid::oid).collect();
    let mut hasher = DefaultHasher::new();
    (sql, &types, writes).hash(&mut hasher);
    let hash = hasher.finish();
    let found = PLANS.with_borrow_mut(|plans| match plans.kept.get(&hash) {
        Some(kept) => {
            let same = kept.sql == sql && kept.types == types && kept.writes == writes;
            Found::Kept(same.then(|| Rc::clone(&kept.plan)))
        }
        None if plans.kept.len() >= KEPT => Found::Kept(None),
        None if plans.seen.contains(&hash) => Found::Seen,
        None => {
            if plans.seen.len() < SEEN {
                plans.seen.insert(hash);
            }
            Found::Kept(None)
        }
    });
    if let Found::Kept(plan) = found {
        return Ok(plan);
    }
    let of_types: Vec<PgOid> = types.iter().copied().map(PgOid::from).collect();
    let plan = Rc::new(ManuallyDrop::new(prepare(&of_types)?.keep()));
    let kept = Kept { sql: sql.to_owned(), types, writes, plan: Rc::clone(&plan) };
    PLANS.with_borrow_mut(|plans| plans.kept.insert(hash, kept));
    Ok(Some(plan))
}

enum Found {
    /// Its plan; `None` where it is not to be kept, or not yet.
    Kept(Option<Plan>),
    /// It ran once before.
    Seen,
}

/// Whether PostgreSQL plans it at all.
fn is_planned(sql: &str) -> bool {
    let sql = sql.trim_start();
    ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"].iter().any(|word| sql.starts_with(word))
}
