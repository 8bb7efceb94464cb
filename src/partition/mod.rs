//! Partitions of the hot table: what they are, freezing them, taking them out and putting them back.

pub mod access;
pub mod adapt;
pub mod ageing;
pub mod all_view;
pub mod archive_tree;
pub mod carry_over;
pub mod check;
pub mod ddl;
pub mod default_rows;
pub mod discover;
pub mod extent;
pub mod foreign_key;
pub mod freeze;
pub mod give_way;
pub mod labels;
pub mod locks;
pub mod mirror;
pub mod new_partition;
pub mod prerequisites;
pub mod remnant_guard;
pub mod root_ddl;
pub mod row_set;
pub mod snapshots;
pub mod subscribed;
pub mod swap;
