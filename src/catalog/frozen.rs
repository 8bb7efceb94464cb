//! Archived partitions whose objects are of a frozen storage class, and the refusal to read them.

use archive_core::store::Retrieval;
use pgrx::datum::DatumWithOid;

use super::object::ArchivedObject;
use super::partition::ArchivedPartition;
use super::tier;
use crate::error::{Error, Result, SqlState};
use crate::pg::xact::Caught;
use crate::pg::{spi, user};

/// The verb that restores them, which the refusal names.
const REQUEST: &str = "request_restore";
/// Partitions that a refusal lists.
const LISTED: usize = 20;
/// Days for which the refusal tells prices: the default of the verb.
const DAYS: i32 = 7;

/// What cannot be read of one partition.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// Id in `archive_ext.partition`.
    pub id: i64,
    /// Qualified name.
    pub name: String,
    /// Storage of its objects.
    pub storage: String,
    /// Their storage class.
    pub class: String,
    /// How many must be restored.
    pub objects: i64,
    /// Their bytes.
    pub bytes: i64,
}

impl Frozen {
    /// Those of `objects` that cannot be read; `None` if all can.
    pub fn of<'a>(partition: &ArchivedPartition, objects: impl Iterator<Item = &'a ArchivedObject>) -> Option<Self> {
        let mut found: Option<Self> = None;
        for object in objects {
            let Some(class) = &object.frozen else { continue };
            let frozen = found.get_or_insert_with(|| Self {
                id: partition.id,
                name: partition.name.clone(),
                storage: partition.storage.clone(),
                class: class.clone(),
                objects: 0,
                bytes: 0,
            });
            frozen.objects += 1;
            frozen.bytes += object.bytes.cast_signed();
        }
        found
    }
}

/// What cannot be read now of the archived partitions and row sets with these ids.
pub fn of_partitions(ids: &[i64]) -> Result<Vec<Frozen>> {
    unreadable("true", &[ids.to_vec().into()])
}

/// What cannot be read now of the objects of a row set that may have rows of these times, a multirange, by the field that tells them.
pub fn of_times(row_set: i64, time: Option<i32>, times: &str) -> Result<Option<Frozen>> {
    let given = [vec![row_set].into(), time.into(), times.into()];
    Ok(unreadable(&tier::may_be_of("$2", "$3::tstzmultirange"), &given)?.into_iter().next())
}

fn unreadable(condition: &str, given: &[DatumWithOid<'_>]) -> Result<Vec<Frozen>> {
    let sql = format!(
        "SELECT p.id, format('%I.%I', p.schema_name, p.partition_name), p.storage::text, max(o.storage_class), count(*),
                sum(o.bytes)::bigint
         FROM archive_ext.partition p JOIN archive_ext.object o ON o.partition_id = p.id AND o.version = p.version
         WHERE p.id = ANY ($1) AND p.status = 'ARCHIVED' AND {} AND {condition} GROUP BY p.id ORDER BY p.lower_bound, p.id",
        tier::is_unreadable("o")
    );
    user::elevated(|| {
        spi::rows(&sql, given, |row| {
            Ok(Frozen {
                id: row.need(1)?,
                name: row.need(2)?,
                storage: row.need(3)?,
                class: row.need(4)?,
                objects: row.need(5)?,
                bytes: row.need(6)?,
            })
        })
    })
}

/// Refuses (55000) to read an archived partition or row set of which something cannot be read now.
pub fn refuse(id: i64) -> Result<()> {
    let frozen = of_partitions(&[id])?;
    if frozen.is_empty() { Ok(()) } else { Err(refusal(&frozen)?) }
}

/// What one way to restore something costs, if prices are known.
#[derive(Debug, Clone)]
pub struct Price {
    /// Requests, retrieval, and the copy in STANDARD for the days.
    pub total: String,
    /// Of the price list.
    pub currency: String,
}

/// What readable copies cost, by `archive_ext.retrieval_price`.
pub fn price(frozen: &Frozen, retrieval: Retrieval, days: i32) -> Result<Option<Price>> {
    user::elevated(|| {
        spi::optional(
            "SELECT total::text, currency FROM archive_ext.retrieval_cost($1::name, $2, $3, $4, $5)
             WHERE retrieval = $6 AND total IS NOT NULL",
            &[
                frozen.storage.as_str().into(),
                frozen.class.as_str().into(),
                frozen.objects.into(),
                frozen.bytes.into(),
                days.into(),
                retrieval.as_str().into(),
            ],
            |row| Ok(Price { total: row.need(1)?, currency: row.need(2)? }),
        )
    })
}

/// The refusal to read what is frozen (55000): what it is, what each way to restore it takes, what was asked for already, and the call
/// to make.
pub fn refusal(frozen: &[Frozen]) -> Result<Error> {
    let mut lines: Vec<String> = frozen.iter().take(LISTED).map(line).collect();
    if frozen.len() > LISTED {
        lines.push(format!("and {} more", frozen.len() - LISTED));
    }
    lines.extend(options(frozen)?);
    lines.extend(requests(frozen)?);
    let message = match frozen {
        [one] => format!("archived partition {} is in a frozen storage class", one.name),
        several => format!("{} archived partitions that are needed are in a frozen storage class", several.len()),
    };
    Ok(Error::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .detail(lines.join("\n"))
        .hint(hint(frozen)))
}

/// The refusal to read on where a restored copy went meanwhile, or the store has an object in a frozen class and the catalog does not
/// know (55000).
pub fn lapsed(partition: &str, error: &archive_core::Error) -> Error {
    Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("archived partition {partition} cannot be read now: an object is in a frozen storage class, and no restored copy is there"),
    )
    .detail(error.detail_text().unwrap_or_else(|| error.message().to_owned()))
    .hint(format!("SELECT * FROM {REQUEST}('{partition}'), and read again when that is ready."))
}

/// Whether what was caught is one of these refusals.
pub fn is_refusal(caught: &Caught) -> bool {
    caught.sqlstate == SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
        && caught.hint.as_ref().is_some_and(|hint| hint.contains(REQUEST))
}

fn line(one: &Frozen) -> String {
    let objects = if one.objects == 1 { "1 object".to_owned() } else { format!("{} objects", one.objects) };
    format!("{}: {objects}, {}, {}", one.name, size(one.bytes), one.class)
}

fn size(bytes: i64) -> String {
    archive_core::policy::size(bytes.unsigned_abs())
}

/// One line for each way to restore all of it.
fn options(frozen: &[Frozen]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for retrieval in Retrieval::ALL {
        let told = frozen.iter().map(|one| retrieval.told(&one.class).zip(retrieval.hours(&one.class)));
        let Some(told) = told.collect::<Option<Vec<_>>>() else { continue };
        let Some((takes, _)) = told.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b)) else { continue };
        let prices = frozen.iter().map(|one| price(one, retrieval, DAYS)).collect::<Result<Option<Vec<_>>>>()?;
        let price = match prices.and_then(|prices| sum(&prices)) {
            Some(price) => format!("{} {}", price.total, price.currency),
            None => "price not known".to_owned(),
        };
        lines.push(format!("{}: {takes}, {price} with {DAYS} days of reading", retrieval.as_str()));
    }
    Ok(lines)
}

fn sum(prices: &[Price]) -> Option<Price> {
    let currency = &prices.first()?.currency;
    let mut total = 0.0;
    for price in prices {
        total += price.total.parse::<f64>().ok().filter(|_| price.currency == *currency)?;
    }
    Some(Price { total: format!("{total:.4}"), currency: currency.clone() })
}

fn requests(frozen: &[Frozen]) -> Result<Vec<String>> {
    let ids: Vec<_> = frozen.iter().map(|one| one.id).collect();
    user::elevated(|| {
        spi::rows(
            "SELECT format('restore of %I.%I was requested by %s at %s (%s) and is %s', p.schema_name, p.partition_name, r.requested_by,
                      to_char(r.requested_at, 'YYYY-MM-DD HH24:MI OF'), r.retrieval, r.status)
                    || coalesce(', expected by ' || to_char(r.expected_at, 'YYYY-MM-DD HH24:MI OF'), '')
             FROM archive_ext.restore_request r JOIN archive_ext.partition p ON p.id = r.partition_id
             WHERE r.partition_id = ANY ($1) AND r.ended_at IS NULL AND r.status <> 'ready' ORDER BY r.id LIMIT 20",
            &[ids.into()],
            |row| row.need(1),
        )
    })
}

fn hint(frozen: &[Frozen]) -> String {
    match frozen {
        [one] => {
            format!("SELECT * FROM {REQUEST}('{}', tier => 'standard'), and read again when that is ready.", one.name)
        }
        several => {
            let names: Vec<_> =
                several.iter().take(LISTED).map(|one| format!("'{}'", one.name.replace('\'', "''"))).collect();
            format!(
                "SELECT p.name, r.* FROM unnest(ARRAY[{}]) p(name), {REQUEST}(p.name, tier => 'standard') r, and read again when those are ready.",
                names.join(", ")
            )
        }
    }
}
