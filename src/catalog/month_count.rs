//! `archive_ext.month_count`: how many rows of each month a table and its archive had when they were last counted, and the most
//! they ever had.

use pgrx::pg_sys;

use super::alert::Standing;
use crate::error::Result;
use crate::pg::{spi, user};

/// The rows of one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its first day, in UTC; `-infinity` stands for rows without a time.
    pub month: String,
    /// Rows in the table.
    pub hot: i64,
    /// Rows in the archive.
    pub archived: i64,
}

/// What a count says beside what was recorded.
#[derive(Debug)]
pub struct Reconciled {
    /// What was counted now.
    pub counted: Counted,
    /// The most rows ever counted before; `None` for a month that is new.
    pub recorded: Option<i64>,
}

impl Reconciled {
    /// Rows that were there and are no more.
    pub fn missing(&self) -> i64 {
        (self.recorded.unwrap_or(0) - self.counted.hot - self.counted.archived).max(0)
    }
}

/// Keeps what was counted. `accept`: what is fewer than before is right, and forgotten.
pub fn record(source: pg_sys::Oid, counted: &[Counted], accept: bool) -> Result<Vec<Reconciled>> {
    let column = |of: &dyn Fn(&Counted) -> i64| counted.iter().map(of).collect::<Vec<_>>();
    let months: Vec<String> = counted.iter().map(|one| one.month.clone()).collect();
    user::elevated(|| {
        spi::writing_rows(
            "WITH found AS (
               SELECT coalesce(s.month, c.month) AS month, coalesce(s.hot, 0) AS hot, coalesce(s.archived, 0) AS archived, c.recorded
               FROM unnest($2::text[]::date[], $3::bigint[], $4::bigint[]) AS s (month, hot, archived)
               FULL JOIN (SELECT * FROM archive_ext.month_count WHERE source = $1::oid) c ON c.month = s.month),
             kept AS (
               INSERT INTO archive_ext.month_count AS c (source, month, hot, archived, recorded)
               SELECT $1::oid, month, hot, archived,
                      CASE WHEN $5 THEN hot + archived ELSE greatest(hot + archived, recorded) END FROM found
               ON CONFLICT (source, month) DO UPDATE
               SET hot = excluded.hot, archived = excluded.archived,
                   recorded = CASE WHEN $5 THEN excluded.recorded ELSE greatest(c.recorded, excluded.recorded) END,
                   counted_at = clock_timestamp(),
                   missing_since = CASE WHEN NOT $5 AND greatest(c.recorded, excluded.recorded) > excluded.hot + excluded.archived
                                        THEN coalesce(c.missing_since, clock_timestamp()) END)
             SELECT month::text, hot, archived, recorded FROM found ORDER BY found.month",
            &[
                source.into(),
                months.into(),
                column(&|one| one.hot).into(),
                column(&|one| one.archived).into(),
                accept.into(),
            ],
            |row| {
                let counted = Counted { month: row.need(1)?, hot: row.need(2)?, archived: row.need(3)? };
                Ok(Reconciled { counted, recorded: row.get(4)? })
            },
        )
    })
}

/// Whether the rows of a table were ever counted.
pub fn any(source: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.month_count WHERE source = $1::oid)",
            &[source.into()],
            |row| row.need(1),
        )
    })
}

/// So many rows of each of these months went as they were meant to.
pub fn forgive(source: pg_sys::Oid, months: &[(String, i64)]) -> Result<()> {
    let (names, rows): (Vec<_>, Vec<_>) = months.iter().cloned().unzip();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.month_count c SET recorded = greatest(c.recorded - g.rows, 0)
             FROM unnest($2::text[]::date[], $3::bigint[]) g(month, rows) WHERE c.source = $1::oid AND c.month = g.month",
            &[source.into(), names.into(), rows.into()],
        )
        .map(drop)
    })
}

/// Tables that have fewer rows of some month than were counted before.
pub fn missing() -> Result<Vec<Standing>> {
    let (me, everything) = (user::current(), user::reads_all_archives());
    let found = user::elevated(|| {
        spi::rows(
            "SELECT c.oid, min(m.missing_since),
                    format('%s rows of %s are gone that were counted before', sum(m.recorded - m.hot - m.archived),
                           string_agg(coalesce(to_char(nullif(m.month, '-infinity'), 'YYYY-MM'), 'no month'), ', ' ORDER BY m.month)),
                    format('See archive_ext.month_counts. Once it is known who deleted them, SELECT reconcile_counts(%L, accept => true).',
                           c.oid::regclass)
             FROM archive_ext.month_count m JOIN pg_class c ON c.oid = m.source::oid
             WHERE m.recorded > m.hot + m.archived AND ($2 OR has_table_privilege($1, c.oid, 'SELECT')) GROUP BY c.oid ORDER BY 2",
            &[me.into(), everything.into()],
            |row| Ok((row.need::<pg_sys::Oid>(1)?, row.get(2)?, row.need::<String>(3)?, row.need::<String>(4)?)),
        )
    })?;
    let mut standing = Vec::with_capacity(found.len());
    for (table, since, detail, remedy) in found {
        if super::sees_every_row(table)? {
            let alert = "rows are missing".to_owned();
            standing.push(Standing { alert, table, partition: None, job: None, since, detail, remedy });
        }
    }
    Ok(standing)
}
