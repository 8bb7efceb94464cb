//! What an event trigger is told: the command's parse tree, taken apart into what the archive must follow.

use std::cell::Cell;

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::{impl_sql_translatable, pg_sys};

use super::foreign::{list_pointers, string_value, text};

thread_local! {
    static QUIET: Cell<u32> = const { Cell::new(0) };
}

/// While one lives, our event triggers do nothing: what runs is our own DDL. It ends with the scope, errors included.
#[derive(Debug)]
pub struct Quiet(());

impl Quiet {
    /// Begins a quiet scope; scopes nest.
    pub fn begin() -> Self {
        QUIET.set(QUIET.get() + 1);
        Self(())
    }

    /// Whether one lives.
    pub fn lasts() -> bool {
        QUIET.get() > 0
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(QUIET.get().saturating_sub(1));
    }
}

/// The result of an event trigger function.
#[derive(Debug)]
pub struct EventTriggerResult;

impl_sql_translatable!(EventTriggerResult, "event_trigger");

// SAFETY: event_trigger is a pseudo-type whose value is never looked at.
unsafe impl BoxRet for EventTriggerResult {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: any datum will do.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::null()) }
    }
}

/// A command on tables, as far as the archive is concerned.
#[derive(Debug)]
pub enum Command {
    /// `ALTER TABLE` with subcommands.
    AlterTable(Alterations),
    /// A table or one of its columns gets another name, or the table another schema.
    Renamed {
        /// What its name before the command means now.
        before: Option<pg_sys::Oid>,
        /// What its name after the command means now.
        after: Option<pg_sys::Oid>,
    },
    /// `GRANT` or `REVOKE` on tables.
    Privileges(Privileges),
    /// A policy of these tables was made, changed or dropped.
    Policies(Vec<pg_sys::Oid>),
    /// Anything else.
    Other,
}

/// The subcommands of an `ALTER TABLE` that change what the archive mirrors.
#[derive(Debug, Default)]
pub struct Alterations {
    /// The table; `None` when it does not exist.
    pub table: Option<pg_sys::Oid>,
    /// Columns are dropped or retyped, which views on them hinder.
    pub hindered_by_views: bool,
    /// Columns, owner or row security may have changed.
    pub reshapes: bool,
    /// Columns with `SET DATA TYPE … USING`, and how the expression casts them.
    pub using: Vec<(String, Using)>,
    /// Columns that got a new default, which need not be the one that ADD COLUMN filled old rows with.
    pub new_defaults: Vec<String>,
}

/// What `USING` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Using {
    /// The column itself, cast to these types one after the other.
    Casts(Vec<String>),
    /// Some other expression.
    Expression,
}

/// Whose privileges on which tables changed.
#[derive(Debug, Default)]
pub struct Privileges {
    /// The tables.
    pub tables: Vec<pg_sys::Oid>,
    /// All tables of these schemas.
    pub schemas: Vec<String>,
    /// The roles; `InvalidOid` is PUBLIC.
    pub roles: Vec<pg_sys::Oid>,
}

/// The command that fired the event trigger; `None` when the archive has nothing to do with it: our own DDL, the script
/// of an extension, a restore by `pg_restore`, which brings the archive's relations itself.
///
/// # Safety
/// `fcinfo` is that of the event trigger function that is running.
pub unsafe fn command(fcinfo: pg_sys::FunctionCallInfo) -> Option<Command> {
    // SAFETY: by the caller's promise; an EventTriggerData context carries the tag of its struct.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData || ignores() {
            return None;
        }
        let tree = (*context.cast::<pg_sys::EventTriggerData>()).parsetree;
        if tree.is_null() { Some(Command::Other) } else { Some(take_apart(tree)) }
    }
}

fn ignores() -> bool {
    // SAFETY: reads backend-local flags; the extension is looked up in the catalog.
    unsafe {
        QUIET.get() > 0
            || pg_sys::creating_extension
            || !(pg_sys::row_security || pg_sys::check_function_bodies)
            || pg_sys::get_extension_oid(c"archive_ext".as_ptr(), true) == pg_sys::InvalidOid
    }
}

/// # Safety
/// `tree` is a live utility statement.
unsafe fn take_apart(tree: *mut pg_sys::Node) -> Command {
    // SAFETY: a node with a tag is of the tag's struct.
    unsafe {
        match (*tree).type_ {
            pg_sys::NodeTag::T_AlterTableStmt => Command::AlterTable(alterations(&*tree.cast())),
            pg_sys::NodeTag::T_RenameStmt => renamed(&*tree.cast()),
            pg_sys::NodeTag::T_AlterObjectSchemaStmt => {
                let statement = &*tree.cast::<pg_sys::AlterObjectSchemaStmt>();
                Command::Renamed {
                    before: resolve(statement.relation),
                    after: resolve_as(statement.relation, |target| target.schemaname = statement.newschema),
                }
            }
            pg_sys::NodeTag::T_GrantStmt => privileges(&*tree.cast()),
            pg_sys::NodeTag::T_CreatePolicyStmt => policies([(*tree.cast::<pg_sys::CreatePolicyStmt>()).table]),
            pg_sys::NodeTag::T_AlterPolicyStmt => policies([(*tree.cast::<pg_sys::AlterPolicyStmt>()).table]),
            pg_sys::NodeTag::T_DropStmt => dropped(&*tree.cast()),
            _ => Command::Other,
        }
    }
}

/// # Safety
/// `target` is NULL or a live RangeVar.
unsafe fn resolve(target: *const pg_sys::RangeVar) -> Option<pg_sys::Oid> {
    if target.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise; with RVR_MISSING_OK a missing relation is InvalidOid.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            target,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The relation by the name it has after the command.
///
/// # Safety
/// As for [`resolve`].
unsafe fn resolve_as(
    target: *const pg_sys::RangeVar,
    change: impl FnOnce(&mut pg_sys::RangeVar),
) -> Option<pg_sys::Oid> {
    if target.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise; the copy borrows the original's strings, which outlive it.
    unsafe {
        let mut after = *target;
        change(&mut after);
        resolve(&raw const after)
    }
}

/// # Safety
/// A live statement.
unsafe fn renamed(statement: &pg_sys::RenameStmt) -> Command {
    use pg_sys::ObjectType as Object;
    // SAFETY: by the caller's promise.
    unsafe {
        match statement.renameType {
            Object::OBJECT_COLUMN => {
                let table = resolve(statement.relation);
                Command::Renamed { before: table, after: table }
            }
            Object::OBJECT_TABLE => Command::Renamed {
                before: resolve(statement.relation),
                after: resolve_as(statement.relation, |target| target.relname = statement.newname),
            },
            _ => Command::Other,
        }
    }
}

/// # Safety
/// A live statement.
unsafe fn alterations(statement: &pg_sys::AlterTableStmt) -> Alterations {
    use pg_sys::AlterTableType as Alter;
    // SAFETY: by the caller's promise; cmds is a list of AlterTableCmds.
    unsafe {
        let mut found = Alterations { table: resolve(statement.relation), ..Alterations::default() };
        for command in list_pointers::<pg_sys::AlterTableCmd>(statement.cmds) {
            let command = &*command;
            match command.subtype {
                Alter::AT_DropColumn => {
                    found.hindered_by_views = true;
                    found.reshapes = true;
                }
                Alter::AT_AlterColumnType => {
                    found.hindered_by_views = true;
                    found.reshapes = true;
                    let column = text(command.name);
                    found.using.extend(using(&column, command.def).map(|using| (column, using)));
                }
                // Every row gets another value, of the same type.
                #[cfg(any(feature = "pg17", feature = "pg18"))]
                Alter::AT_SetExpression => {
                    found.reshapes = true;
                    found.using.push((text(command.name), Using::Expression));
                }
                Alter::AT_ColumnDefault => found.new_defaults.push(text(command.name)),
                Alter::AT_AddColumn
                | Alter::AT_DropNotNull
                | Alter::AT_ChangeOwner
                | Alter::AT_EnableRowSecurity
                | Alter::AT_DisableRowSecurity
                | Alter::AT_ForceRowSecurity
                | Alter::AT_NoForceRowSecurity
                | Alter::AT_DropIdentity
                | Alter::AT_DropExpression => found.reshapes = true,
                _ => {}
            }
        }
        found
    }
}

/// # Safety
/// `definition` is the ColumnDef of an ALTER COLUMN TYPE.
unsafe fn using(column: &str, definition: *mut pg_sys::Node) -> Option<Using> {
    // SAFETY: by the caller's promise; a node with a tag is of the tag's struct.
    unsafe {
        if definition.is_null() {
            return None;
        }
        let mut expression = (*definition.cast::<pg_sys::ColumnDef>()).raw_default;
        if expression.is_null() {
            return None;
        }
        let mut casts = Vec::new();
        while (*expression).type_ == pg_sys::NodeTag::T_TypeCast {
            let cast = &*expression.cast::<pg_sys::TypeCast>();
            casts.push(type_name(cast.typeName));
            expression = cast.arg;
        }
        casts.reverse();
        Some(if is_column(column, expression) { Using::Casts(casts) } else { Using::Expression })
    }
}

/// # Safety
/// `expression` is a live raw expression.
unsafe fn is_column(column: &str, expression: *mut pg_sys::Node) -> bool {
    // SAFETY: by the caller's promise; the fields of a ColumnRef are String nodes, or a star.
    unsafe {
        if (*expression).type_ != pg_sys::NodeTag::T_ColumnRef {
            return false;
        }
        let fields = list_pointers::<pg_sys::Node>((*expression.cast::<pg_sys::ColumnRef>()).fields);
        fields
            .last()
            .is_some_and(|last| (**last).type_ != pg_sys::NodeTag::T_A_Star && text(string_value(*last)) == column)
    }
}

/// The type's qualified name. The statement has run, so the type exists.
///
/// # Safety
/// `name` is a live TypeName.
unsafe fn type_name(name: *const pg_sys::TypeName) -> String {
    let (mut oid, mut typmod) = (pg_sys::InvalidOid, -1);
    // SAFETY: by the caller's promise; the out pointers are valid, the result is a palloc'd C string.
    unsafe {
        pg_sys::typenameTypeIdAndMod(std::ptr::null_mut(), name, &mut oid, &mut typmod);
        let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
        text(pg_sys::format_type_extended(oid, typmod, flags as u16))
    }
}

/// # Safety
/// A live statement.
unsafe fn privileges(statement: &pg_sys::GrantStmt) -> Command {
    if statement.objtype != pg_sys::ObjectType::OBJECT_TABLE {
        return Command::Other;
    }
    let mut changed = Privileges::default();
    // SAFETY: by the caller's promise: objects are RangeVars or schema names, grantees are RoleSpecs.
    unsafe {
        match statement.targtype {
            pg_sys::GrantTargetType::ACL_TARGET_OBJECT => {
                changed.tables.extend(
                    list_pointers::<pg_sys::RangeVar>(statement.objects)
                        .into_iter()
                        .filter_map(|target| resolve(target)),
                );
            }
            pg_sys::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA => {
                changed.schemas.extend(
                    list_pointers::<pg_sys::Node>(statement.objects).into_iter().map(|name| text(string_value(name))),
                );
            }
            _ => return Command::Other,
        }
        changed.roles.extend(list_pointers::<pg_sys::RoleSpec>(statement.grantees).into_iter().map(|role| {
            if (*role).roletype == pg_sys::RoleSpecType::ROLESPEC_PUBLIC {
                pg_sys::InvalidOid
            } else {
                pg_sys::get_rolespec_oid(role, true)
            }
        }));
    }
    Command::Privileges(changed)
}

/// # Safety
/// Each is NULL or a live RangeVar.
unsafe fn policies<const N: usize>(tables: [*mut pg_sys::RangeVar; N]) -> Command {
    // SAFETY: by the caller's promise.
    Command::Policies(tables.into_iter().filter_map(|table| unsafe { resolve(table) }).collect())
}

/// # Safety
/// A live statement.
unsafe fn dropped(statement: &pg_sys::DropStmt) -> Command {
    if statement.removeType != pg_sys::ObjectType::OBJECT_POLICY {
        return Command::Other;
    }
    // SAFETY: by the caller's promise: each object is a list of names, the table's and then the policy's.
    let tables = unsafe {
        list_pointers::<pg_sys::List>(statement.objects)
            .into_iter()
            .filter_map(|names| {
                let table = pg_sys::list_truncate(pg_sys::list_copy(names), (*names).length - 1);
                resolve(pg_sys::makeRangeVarFromNameList(table))
            })
            .collect()
    };
    Command::Policies(tables)
}
