//! Archived rows in the shape that the table has now. Columns are found by field id, whatever their names and order; what
//! was added later is filled as ALTER TABLE filled the rows that were there, what was retyped is cast as it cast them.
//!
//! Used by queries (`fdw`) and by the restore (`engine`).

use archive_core::schema::{Field, PgType, TableSchema};
use pgrx::pg_sys;

use crate::catalog::column_map::{CastSettings, ColumnMap, Fill, MappedColumn, TypeStep};
use crate::error::{Error, Result, SqlState};
use crate::pg::cast::{Cast, CastStep, TypeRef};
use crate::pg::columns::{self, Column};
use crate::pg::guc::GucNest;
use crate::pg::relation::Relation;
use crate::pg::reshape::Reshaper;
use crate::pg::row_expr::RowExpression;

/// An archived partition, as far as its shape goes.
#[derive(Debug, Clone, Copy)]
pub struct Archived<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Columns as archived.
    pub schema: &'a TableSchema,
    /// Which field each column is now.
    pub map: &'a ColumnMap,
    /// When it was archived, in microseconds since 2000-01-01 UTC.
    pub archived_at: i64,
}

/// Where the values of a column come from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// An archived field of the column's very type.
    Field(&'a Field),
    /// An archived field of a type that the column had before these steps.
    Retyped(&'a Field, Option<&'a TypeStep>, &'a [TypeStep]),
    /// Nothing was archived: the column was added later.
    Added(&'a MappedColumn),
}

impl<'a> Archived<'a> {
    /// Where `column` of the table comes from; 0A000 when it is unknown to the catalog.
    pub fn origin(&self, column: &Column) -> Result<Origin<'a>> {
        let Some(mapped) = self.map.named(&column.name) else { return self.by_name(column) };
        let Some(field) = self.schema.field(mapped.field_id) else { return Ok(Origin::Added(mapped)) };
        Ok(match mapped.type_at(&field.type_sql, self.archived_at) {
            Some(at) if at + 1 == mapped.types.len() => Origin::Field(field),
            Some(at) => Origin::Retyped(field, mapped.types.get(at), mapped.types.get(at + 1..).unwrap_or_default()),
            None => as_typed(column, field),
        })
    }

    fn by_name(&self, column: &Column) -> Result<Origin<'a>> {
        match self.schema.fields.iter().find(|field| field.name == column.name) {
            Some(field) if self.map.is_empty() => Ok(as_typed(column, field)),
            _ => Err(self.unreadable(
                &column.name,
                "The catalog does not know what the rows hold that were archived before the column was added.",
            )),
        }
    }

    /// The error for a column that cannot be read (0A000).
    fn unreadable(&self, column: &str, why: &str) -> Error {
        self.refused(column, why).hint("Select other columns; to reattach the partition, drop this column first.")
    }

    fn refused(&self, column: &str, why: &str) -> Error {
        Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("column \"{column}\" of archived partition {} cannot be read", self.name),
        )
        .detail(why)
    }

    /// The columns of archived rows as they were archived, in the order of the schema, at the same positions; 0A000 for one
    /// whose type does not exist any more.
    pub fn columns(&self) -> Result<Vec<(Column, PgType)>> {
        let column = |(position, field): (usize, &Field)| {
            let step = self.map.field(field.id).and_then(|column| {
                column.type_at(&field.type_sql, self.archived_at).and_then(|at| column.types.get(at))
            });
            let Some((of, pg_type)) = archived_type(field, step) else {
                let why = format!("It was archived with type {}, which does not exist any more.", field.type_sql);
                return Err(self.refused(&field.name, &why));
            };
            Ok((of.as_column(position, &field.name), pg_type))
        };
        self.schema.fields.iter().enumerate().map(column).collect()
    }

    /// Columns that were dropped: in the objects, but in the table no more.
    pub fn dropped(&self) -> impl Iterator<Item = &'a Field> {
        let map = self.map;
        let gone = move |field: &&Field| map.field(field.id).is_some_and(|column| column.name.is_none());
        self.schema.fields.iter().filter(gone)
    }
}

fn as_typed<'a>(column: &Column, field: &'a Field) -> Origin<'a> {
    let _path = GucNest::new().safe_search_path();
    let same = columns::type_sql(column) == field.type_sql
        && columns::pg_type(column).is_ok_and(|pg_type| pg_type == field.pg_type);
    if same { Origin::Field(field) } else { Origin::Retyped(field, None, &[]) }
}

/// What a volatile default is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volatile {
    /// A query: the same row would have another value each time.
    Refuse,
    /// A restore, as ALTER TABLE would have done.
    Evaluate,
}

/// Builds the reshaper of an archived partition for one relation.
#[derive(Debug)]
pub struct Builder<'a> {
    archived: Archived<'a>,
    target: &'a Relation,
    columns: Vec<Column>,
    /// The hot table: its defaults and generation expressions.
    source: Option<pg_sys::Oid>,
    volatile: Volatile,
    reshaper: Reshaper,
}

impl<'a> Builder<'a> {
    /// A builder of rows for `target`, whose columns have the names of the hot table's.
    pub fn new(archived: Archived<'a>, target: &'a Relation, source: Option<pg_sys::Oid>, volatile: Volatile) -> Self {
        let columns = columns::of_relation(target);
        Self { archived, target, columns, source, volatile, reshaper: Reshaper::default() }
    }

    /// Reads every archived field whose type still exists, dropped ones included; whether all could be read.
    pub fn read_all(&mut self) -> bool {
        let mut all = true;
        for field in &self.archived.schema.fields {
            let mapped = self.archived.map.field(field.id);
            let step = mapped.and_then(|column| {
                column.type_at(&field.type_sql, self.archived.archived_at).and_then(|at| column.types.get(at))
            });
            match archived_type(field, step) {
                Some((of, pg_type)) => {
                    self.reshaper.read(self.archived.schema, field.id, &field.name, of, &pg_type);
                }
                None => all = false,
            }
        }
        all
    }

    /// Adds the column at `index` of the relation.
    pub fn add(&mut self, index: usize) -> Result<()> {
        let Some(column) = self.columns.iter().find(|column| column.index == index).cloned() else { return Ok(()) };
        match self.archived.origin(&column)? {
            Origin::Field(field) => {
                let of = TypeRef::of(&column);
                let position = self.reshaper.read(self.archived.schema, field.id, &column.name, of, &field.pg_type);
                self.reshaper.copy(position, index);
                Ok(())
            }
            Origin::Retyped(field, from, steps) => self.add_retyped(&column, field, from, steps),
            Origin::Added(mapped) => self.add_added(&column, mapped),
        }
    }

    fn add_retyped(
        &mut self,
        column: &Column,
        field: &Field,
        from: Option<&TypeStep>,
        steps: &[TypeStep],
    ) -> Result<()> {
        let Some((from, pg_type)) = archived_type(field, from) else {
            let why = format!("It was archived with type {}, which does not exist any more.", field.type_sql);
            return Err(self.archived.unreadable(&column.name, &why));
        };
        let cast = self.casts(column, &field.type_sql, from, steps)?;
        let position = self.reshaper.read(self.archived.schema, field.id, &column.name, from, &pg_type);
        self.reshaper.cast(position, cast, column.index);
        Ok(())
    }

    fn casts(&self, column: &Column, was: &str, from: TypeRef, steps: &[TypeStep]) -> Result<Cast> {
        let now = columns::type_sql(column);
        if steps.iter().any(|step| step.by_expression) {
            let why = format!(
                "Its type was changed from {was} to {now} USING an expression, which cannot be repeated for archived rows."
            );
            return Err(self.archived.unreadable(&column.name, &why));
        }
        let settings = steps.last().map(|step| step.settings.clone()).unwrap_or_default();
        let settings = if settings == CastSettings::default() {
            crate::catalog::column_map::session_settings()?
        } else {
            settings
        };
        chain(from, TypeRef::of(column), steps).and_then(|steps| Cast::new(from, &steps, settings)).ok_or_else(|| {
            let why = format!("It was archived with type {was}, from which there is no cast to {now}.");
            self.archived.unreadable(&column.name, &why)
        })
    }

    fn add_added(&mut self, column: &Column, mapped: &MappedColumn) -> Result<()> {
        match &mapped.fill {
            Fill::None => {
                self.reshaper.constant(None, TypeRef::of(column), None, column.index);
                Ok(())
            }
            Fill::Constant(text) => self.add_constant(column, mapped, text),
            Fill::Volatile if self.volatile == Volatile::Refuse => Err(self
                .archived
                .refused(
                    &column.name,
                    "The column was added later with a volatile default, which gives each row a value of its own.",
                )
                .hint("Select other columns, or have reattach_partition() fill it.")),
            Fill::Volatile | Fill::Generated => self.add_computed(column, mapped.fill == Fill::Generated),
        }
    }

    fn add_constant(&mut self, column: &Column, mapped: &MappedColumn, text: &str) -> Result<()> {
        let steps = mapped.types.get(1..).unwrap_or_default();
        if steps.is_empty() {
            self.reshaper.constant(Some(text), TypeRef::of(column), None, column.index);
            return Ok(());
        }
        let first = mapped.types.first();
        let was = first.and_then(|step| step.names.last()).map_or("", String::as_str);
        let from = first.and_then(existing).or_else(|| TypeRef::named("pg_catalog.text"));
        let Some(from) = from else { return Ok(()) };
        let cast = self.casts(column, was, from, steps)?;
        self.reshaper.constant(Some(text), from, Some(&cast), column.index);
        Ok(())
    }

    /// The expression is the hot table's; what it refers to is read as well.
    fn add_computed(&mut self, column: &Column, generated: bool) -> Result<()> {
        let hot = self.source.and_then(Relation::peek);
        let expression = hot.as_ref().and_then(|hot| {
            let same = columns::of_relation(hot).into_iter().find(|other| other.name == column.name)?;
            RowExpression::new(hot, same.index, generated, self.target)
        });
        let Some(expression) = expression else {
            return Err(self.archived.unreadable(
                &column.name,
                "The column was added later, and the expression that it was filled with is gone from the table.",
            ));
        };
        for needed in expression.needs().to_vec() {
            self.add(needed)?;
        }
        self.reshaper.compute(expression, column.index);
        Ok(())
    }

    /// Adds all columns of the relation.
    pub fn add_every_column(&mut self) -> Result<()> {
        let indexes: Vec<_> = self.columns.iter().map(|column| column.index).collect();
        indexes.into_iter().try_for_each(|index| self.add(index))
    }

    /// The reshaper.
    pub fn finish(self) -> Reshaper {
        self.reshaper
    }
}

/// The type of an archived field; that of an enum which is gone is text, as its labels are archived. What only has the
/// name of the archived type now must be stored like it.
fn archived_type(field: &Field, step: Option<&TypeStep>) -> Option<(TypeRef, PgType)> {
    let found = match step.filter(|step| step.oid != 0) {
        Some(step) => existing(step),
        None => step.map_or_else(|| TypeRef::named(&field.type_sql), existing).filter(|of| is_stored_as(*of, field)),
    };
    match found {
        Some(of) => Some((of, field.pg_type.clone())),
        None if matches!(field.pg_type, PgType::Enum) => TypeRef::named("pg_catalog.text").map(|of| (of, PgType::Text)),
        None => None,
    }
}

fn is_stored_as(of: TypeRef, field: &Field) -> bool {
    columns::pg_type(&of.as_column(0, &field.name)).is_ok_and(|pg_type| pg_type == field.pg_type)
}

/// The type of a step, if it still exists: by OID where it is known, for the type may have another name now.
fn existing(step: &TypeStep) -> Option<TypeRef> {
    match step.oid {
        0 => step.names.last().and_then(|name| TypeRef::named(name)),
        oid => TypeRef::numbered(pg_sys::Oid::from(oid), step.typmod),
    }
}

/// The casts of each step. An enum that is gone is passed over between two casts to text.
fn chain(from: TypeRef, to: TypeRef, steps: &[TypeStep]) -> Option<Vec<CastStep>> {
    let text = TypeRef::named("pg_catalog.text")?.oid;
    let mut chain: Vec<CastStep> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        for name in &step.casts {
            chain.push(CastStep { to: TypeRef::named(name)?, explicit: true });
        }
        let is_last = at + 1 == steps.len();
        let reached = chain.last().map_or(from.oid, |step| step.to.oid);
        match if is_last { Some(to) } else { existing(step) } {
            Some(to) => chain.push(CastStep { to, explicit: false }),
            None if reached == text => {}
            None => return None,
        }
    }
    if steps.is_empty() {
        chain.push(CastStep { to, explicit: false });
    }
    Some(chain)
}

/// What became of a column since a partition was archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It was added.
    Added(MappedColumn),
    /// It was dropped; its name in the archive.
    Dropped(String),
    /// It was renamed, from and to.
    Renamed(String, String),
    /// It was retyped: name, old type, new type.
    Retyped(String, String, String),
}

impl Difference {
    /// As a sentence.
    pub fn describe(&self) -> String {
        match self {
            Self::Added(column) => {
                let name = &column.former_name;
                let filled = match &column.fill {
                    Fill::None => "is NULL".to_owned(),
                    Fill::Constant(text) => format!("holds '{text}'"),
                    Fill::Volatile => "holds its default, evaluated for each row".to_owned(),
                    Fill::Generated => "is computed for each row".to_owned(),
                };
                format!("column \"{name}\", added later, {filled}")
            }
            Self::Dropped(name) => format!("column \"{name}\", dropped later, stays in the archive"),
            Self::Renamed(from, to) => format!("column \"{from}\" is now \"{to}\""),
            Self::Retyped(name, from, to) => format!("column \"{name}\" is cast from {from} to {to}"),
        }
    }
}

impl Archived<'_> {
    /// What became of the columns, for a table that has `columns` now.
    pub fn differences(&self, columns: &[Column]) -> Result<Vec<Difference>> {
        let mut found = Vec::new();
        for column in columns {
            let field = match self.origin(column)? {
                Origin::Added(mapped) => {
                    found.push(Difference::Added(mapped.clone()));
                    continue;
                }
                Origin::Field(field) => field,
                Origin::Retyped(field, _, _) => {
                    let (was, is) = (field.type_sql.clone(), columns::type_sql(column));
                    found.push(Difference::Retyped(column.name.clone(), was, is));
                    field
                }
            };
            if field.name != column.name {
                found.push(Difference::Renamed(field.name.clone(), column.name.clone()));
            }
        }
        found.extend(self.dropped().map(|field| Difference::Dropped(field.name.clone())));
        Ok(found)
    }

    /// Columns of which the archive does not promise that no row is NULL.
    pub fn nullable<'c>(&self, columns: &'c [Column]) -> Vec<&'c Column> {
        let promised = |column: &&Column| matches!(self.origin(column), Ok(Origin::Field(field)) if field.not_null);
        columns.iter().filter(|column| !promised(column)).collect()
    }
}
