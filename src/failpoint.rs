//! Failpoints: named places where a test lets a process die, fail, stop or wait. Only in builds with the feature `failpoints`;
//! in others `failpoint!` is nothing and the setting unknown.
//!
//! `archive_ext.failpoints = 'batch_put=kill; step_end@3=error; *@17=wait'`: at the place, at the third time that this process
//! comes there, at the 17th place of any name. The actions:
//!
//! * `error`, `panic`: raise an error (58000), or panic as a mistake in Rust would.
//! * `kill`: this process gets SIGKILL. `crash`: the postmaster first.
//! * `sleep:MS`: for so many milliseconds; interrupts are noticed.
//! * `wait`: the file `archive_ext.failpoint.NAME` of the data directory is made; goes on when somebody has removed it.
//!
//! The crate `fail` was looked at: its registry is one process's, and it can neither kill nor notice interrupts.

/// A place where a test may interfere. Names are unique; a test compares them with CONTRIBUTING.md.
macro_rules! failpoint {
    ($name:literal) => {{
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach($name);
    }};
}

/// Failpoints of the end of this transaction, which swaps: just before its commit, and when nothing can undo it any more.
macro_rules! failpoints_of_commit {
    () => {{
        #[cfg(feature = "failpoints")]
        $crate::failpoint::of_commit();
    }};
}

#[cfg(feature = "failpoints")]
pub use armed::{of_commit, reach, register};

#[cfg(feature = "failpoints")]
mod armed {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::ffi::CString;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgXactCallbackEvent};

    use crate::error::{Error, SqlState};
    use crate::pg::background;

    /// Nobody waits longer: a test that forgot the file must not hang.
    const LONGEST_WAIT: Duration = Duration::from_secs(120);

    static FAILPOINTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

    thread_local! {
        /// How often this process came to each place that is armed.
        static HITS: RefCell<HashMap<String, u32>> = RefCell::default();
    }

    /// Registers `archive_ext.failpoints`.
    pub fn register() {
        GucRegistry::define_string_guc(
            c"archive_ext.failpoints",
            c"What happens at failpoints; only in builds for tests.",
            c"",
            &FAILPOINTS,
            GucContext::Suset,
            GucFlags::default(),
        );
    }

    /// Does what the setting says of this place.
    pub fn reach(name: &str) {
        let Some(armed) = FAILPOINTS.get() else { return };
        let armed = armed.to_string_lossy().into_owned();
        for item in armed.split(';') {
            let Some((place, action)) = item.split_once('=') else { continue };
            if is_due(place.trim(), name) {
                act(name, action.trim());
            }
        }
    }

    /// `swap_commits` and `swap_committed`.
    pub fn of_commit() {
        pgrx::register_xact_callback(PgXactCallbackEvent::PreCommit, || reach("swap_commits"));
        pgrx::register_xact_callback(PgXactCallbackEvent::Commit, || reach("swap_committed"));
    }

    fn is_due(place: &str, name: &str) -> bool {
        let (wanted, time) = place.split_once('@').unwrap_or((place, ""));
        if wanted != name && wanted != "*" {
            return false;
        }
        let hits = HITS.with_borrow_mut(|hits| {
            let hits = hits.entry(place.to_owned()).or_default();
            *hits += 1;
            *hits
        });
        time.is_empty() || time.parse() == Ok(hits)
    }

    #[allow(clippy::panic)] // One of the actions is to panic.
    fn act(name: &str, action: &str) {
        let (action, argument) = action.split_once(':').unwrap_or((action, ""));
        match action {
            // What is committed cannot fail any more: an error there would be a PANIC.
            "error" | "panic" if name == "swap_committed" => {}
            "error" => Error::new(SqlState::ERRCODE_SYSTEM_ERROR, format!("failpoint {name}")).raise(),
            "panic" => std::panic::panic_any(format!("failpoint {name}")),
            "kill" => die(),
            "crash" => {
                let _ = kill(Pid::from_raw(std::os::unix::process::parent_id().cast_signed()), Signal::SIGKILL);
                die();
            }
            "sleep" => background::pause(Duration::from_millis(argument.parse().unwrap_or_default())),
            "wait" => wait(name),
            other => {
                Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, format!("unknown action \"{other}\"")).raise()
            }
        }
    }

    fn die() {
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }

    /// The file is made under another name first: who finds it can read the process id in it.
    fn wait(name: &str) {
        let file = format!("archive_ext.failpoint.{name}");
        let made = format!("archive_ext.{}.failpoint", std::process::id());
        let written =
            std::fs::write(&made, std::process::id().to_string()).and_then(|()| std::fs::rename(&made, &file));
        if let Err(error) = written {
            Error::new(SqlState::ERRCODE_IO_ERROR, format!("failpoint {name}: {error}")).raise();
        }
        let begun = Instant::now();
        while std::path::Path::new(&file).exists() && begun.elapsed() < LONGEST_WAIT {
            background::pause(Duration::from_millis(10));
        }
    }
}
