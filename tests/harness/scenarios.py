"""What can be done to a world: prepared, called, and when it is done. The points are those of src/failpoint.rs that it comes to."""

from typing import NamedTuple

from harness.world import CASCADE, PLAIN, World


class Scenario(NamedTuple):
    """`also` arms further points; `returns`: the call is over before the point is reached."""
    prepare: object
    call: str
    done: object
    points: str
    also: str = ""
    returns: bool = False


def archived(world, name):
    return world.is_archived(name)


def attached(world, name):
    return world.db.exists(name)


def reattachable(world, drop_local):
    name = world.month()
    world.db.execute(f"SELECT archive_partition('{name}', drop_local => '{drop_local}')")
    return name


def archived_rows(world):
    """Some objects more, each with few rows."""
    first, last = world.rows(40)
    world.db.execute(f"CALL archive_table('{PLAIN}', '2010-01-01', batch_rows => 10)")
    return f"{first} AND {last}"


def merged(world):
    parts = world.quarter()
    world.db.execute(f"CALL merge_partitions_steps(ARRAY['{parts[0]}', '{parts[1]}', '{parts[2]}']::regclass[])")
    return quarter_of(parts[0])


def quarter_of(part):
    table, year, month = part.split("_")
    return f"{table}_{year}q{(int(month) + 2) // 3}"


def is_merged(world, parts):
    return attached(world, quarter_of(parts.split("', '")[0])) and not attached(world, parts.split("', '")[0])


def is_split(world, quarter):
    year, number = quarter.split("_")[1].split("q")
    months = [int(number) * 3 - 2 + n for n in range(3)]
    # Which of the two styles depends on the names of the partitions beside them.
    return not attached(world, quarter) and all(
        attached(world, f"c_{year}_{month:02}") or attached(world, f"c_{year}{month:02}") for month in months)


def left(table):
    """Those that were prepared have left the table, for the clients add old rows all the time; and the job says so."""
    return lambda world, ids: world.db.value(f"""
        SELECT NOT EXISTS (SELECT FROM {table} WHERE id BETWEEN {ids[0]} AND {ids[1]})
           AND NOT EXISTS (SELECT FROM archive_ext.jobs WHERE operation = 'batch' AND status = 'running'
                           AND table_name = '{table}'::regclass)""")


def is_compacted(world, _):
    """A job that a crash interrupted after its work was done is ended by whoever finds nothing left to do."""
    done = world.db.value(f"SELECT done FROM compact_archive('{PLAIN}')")
    return done and not world.db.all("SELECT FROM archive_ext.jobs WHERE operation = 'compact' AND status = 'running'")


SCENARIOS = {
    "steps": Scenario(
        World.month, "CALL archive_partition_steps(ARRAY[to_regclass('{0}')])", archived,
        "step_begins@3 step_done@4 freeze_locked freeze_guarded freeze_validated export_begins object_begins object_written object_put"
        " manifest_made manifest_put verify_begins verify_done swap_begins swap_locked swap_foreign_attached swap_detached"
        " swap_recorded step_done@5"),
    "function": Scenario(
        World.month, "SELECT archive_partition('{0}', drop_local => '0')", archived,
        "freezer_committed freezer_done freezer_answered object_put manifest_put verify_done swap_locked swap_local_dropped"
        " swap_commits swap_committed"),
    "function_failed": Scenario(
        World.month, "SELECT archive_partition('{0}')", archived, "freezer_settles", also="verify_begins=error"),
    "reattach_local_copy": Scenario(
        lambda world: reattachable(world, "1 day"), "SELECT reattach_partition('{0}')", attached,
        "reattach_loaded reattach_locked reattach_foreign_dropped reattach_named reattach_attached reattach_recorded"),
    "reattach_from_objects": Scenario(
        lambda world: reattachable(world, "0"), "SELECT reattach_partition('{0}')", attached,
        "restore_created restore_object_loaded restore_decorated reattach_attached swap_committed"),
    "batches": Scenario(
        lambda world: world.rows(60), f"CALL archive_table('{PLAIN}', '2010-01-01', batch_rows => 20)", left(PLAIN),
        "batch_selected batch_packed batch_put batch_manifest_made batch_manifest_put batch_read_back batch_stored@2"
        " batch_removed batch_appended batch_recorded@2"),
    "cascade": Scenario(
        lambda world: world.families(20),
        f"CALL archive_table('{CASCADE}', '2010-01-01', batch_rows => 5, referenced => 'cascade')", left(CASCADE),
        "cascade_looks@3 batch_put@2 batch_removed"),
    "compact": Scenario(
        archived_rows, f"CALL compact_archive_steps('{PLAIN}')",
        is_compacted, "compact_written rewrite_locked batch_manifest_put rewrite_replaced"),
    "restore_rows": Scenario(
        archived_rows, f"SELECT restore_rows('{PLAIN}', 'id BETWEEN {{0}}')",
        lambda world, ids: world.db.value(f"SELECT count(*) FROM {PLAIN} WHERE id BETWEEN {ids}") == 40,
        "restore_rows_inserted rewrite_locked restore_rows_rewritten"),
    "merge": Scenario(
        lambda world: "', '".join(world.quarter()), "CALL merge_partitions_steps(ARRAY['{0}']::regclass[])", is_merged,
        "rearrange_guarded rearrange_created rearrange_copied@2 rearrange_built rearrange_verified rearrange_locked"
        " rearrange_detached rearrange_swapped rearrange_dropped"),
    "split": Scenario(
        merged, "CALL split_partition_steps('{0}', 'month')", is_split, "rearrange_copied@3 rearrange_detached swap_commits"),
    "settler": Scenario(
        World.month, "SELECT set_lifecycle('{0}', 'WARM')",
        lambda world, name: world.db.value("SELECT count(*) = 0 FROM pg_trigger WHERE tgrelid = %s::regclass"
                                           " AND tgname = 'archive_ext_guard' AND tgenabled <> 'A'", [name]),
        "settler_begins settler_validated", returns=True),
}
