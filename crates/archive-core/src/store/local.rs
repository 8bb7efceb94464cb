//! A directory as an object store: nothing appears under its name before it is complete and on disk.

use super::common::{ObjectMeta, ObjectStore, PendingUpload, PutMode, Upload};
use super::key::{random_suffix, validate_key, validate_prefix};
use super::{Kept, Location, TEMP_PREFIX};
use crate::error::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::{JoinError, JoinHandle};

/// Objects as files of mode 0600 below one directory.
#[derive(Debug, Clone)]
pub(super) struct LocalStore {
    location: Location,
    directory: Arc<PathBuf>,
}

impl LocalStore {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { location: Location::File(directory.clone()), directory: Arc::new(directory) }
    }

    /// Runs file operations on a thread that may block.
    async fn blocking<T: Send + 'static>(&self, run: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let directory = Arc::clone(&self.directory);
        run_blocking(move || run(&directory)).await
    }
}

async fn run_blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(run).await.map_err(task_failed)?
}

fn task_failed(error: JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a file task failed").source(error)
}

#[async_trait]
impl ObjectStore for LocalStore {
    fn location(&self) -> &Location {
        &self.location
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<ObjectMeta> {
        let key = key.to_owned();
        self.blocking(move |base| {
            let mut temp = TempFile::create(base, &key)?;
            temp.write(&bytes)?;
            temp.publish(mode)
        })
        .await
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let key = key.to_owned();
        let temp = self.blocking(move |base| TempFile::create(base, &key)).await?;
        Ok(Box::new(LocalUpload { temp: Some(temp), flushing: None }))
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let key = key.to_owned();
        self.blocking(move |base| {
            let (mut file, metadata) = open(base, &key)?;
            let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
            file.read_to_end(&mut bytes).map_err(|e| failed("read", &base.join(&key), e))?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let key = key.to_owned();
        self.blocking(move |base| read_range(base, &key, range)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let key = key.to_owned();
        self.blocking(move |base| match open(base, &key) {
            Ok((_, metadata)) => Ok(Some(meta(key, &metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let found = self.walk(prefix).await?;
        Ok(found.into_iter().filter(|meta| !is_temp(&meta.key)).collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        validate_key(key)?;
        self.remove(key).await
    }

    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let temporary = self.walk(prefix).await?.into_iter().filter(|meta| is_temp(&meta.key));
        let pending = |meta: ObjectMeta| PendingUpload {
            key: meta.key,
            upload_id: String::new(),
            initiated_unix: meta.last_modified_unix,
        };
        Ok(temporary.map(pending).collect())
    }

    async fn abort_pending(&self, upload: &PendingUpload) -> Result<()> {
        let (directory, name) = upload.key.rsplit_once('/').unwrap_or(("", &upload.key));
        validate_prefix(directory)?;
        if !name.starts_with(TEMP_PREFIX) {
            return Err(Error::new(ErrorKind::InvalidParameter, format!("\"{}\" is no temporary file", upload.key)));
        }
        self.remove(&upload.key).await
    }
}

impl LocalStore {
    async fn walk(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        validate_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.blocking(move |base| {
            let directory = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
            let mut found = Vec::new();
            require_base(base)?;
            walk(base, directory, &prefix, &mut found)?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.blocking(move |base| {
            let path = base.join(&key);
            match check_parents(base, &key).and_then(|()| fs::remove_file(&path)) {
                Ok(()) => sync_directory(path.parent().unwrap_or(base)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed("delete", &path, error)),
            }
        })
        .await
    }
}

fn is_temp(key: &str) -> bool {
    key.rsplit('/').next().is_some_and(|name| name.starts_with(TEMP_PREFIX))
}

fn meta(key: String, metadata: &Metadata) -> ObjectMeta {
    ObjectMeta {
        key,
        bytes: metadata.len(),
        etag: None,
        version_id: None,
        last_modified_unix: Some(metadata.mtime()),
        storage_class: None,
        restore: None,
        kept: Kept::default(),
    }
}

/// An error of the operating system, named as PostgreSQL does.
pub(super) fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::DiskFull, "Free space in the storage's file system.")
        }
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "The operating system user of PostgreSQL must own the storage's directory.")
        }
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "Check that the storage's directory is mounted."),
        io::ErrorKind::AlreadyExists => (ErrorKind::AlreadyExists, "An archived object is never overwritten."),
        _ => (ErrorKind::Storage, "Check the storage's file system."),
    };
    Error::new(kind, format!("could not {verb} file \"{}\"", path.display())).hint(hint).source(error)
}

fn symlink(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("\"{}\" is a symbolic link or no directory", path.display()),
    )
}

/// Refuses a path whose directories below `base` are symbolic links; they could lead anywhere.
fn check_parents(base: &Path, key: &str) -> io::Result<()> {
    let mut path = base.to_owned();
    let Some((directories, _)) = key.rsplit_once('/') else { return Ok(()) };
    for segment in directories.split('/') {
        path.push(segment);
        if !fs::symlink_metadata(&path)?.is_dir() {
            return Err(symlink(&path));
        }
    }
    Ok(())
}

fn open(base: &Path, key: &str) -> Result<(File, Metadata)> {
    validate_key(key)?;
    let path = base.join(key);
    let opened = check_parents(base, key).and_then(|()| match open_same(&path)? {
        Some(opened) => Ok(opened),
        // Somebody replaced the file just then; the second look sees the new one.
        None => open_same(&path)?.ok_or_else(|| symlink(&path)),
    });
    opened.map_err(|e| failed("open", &path, e))
}

/// Opens a regular file; `None` when what was opened is not what was looked at, such as a link put there in between.
fn open_same(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let seen = fs::symlink_metadata(path)?;
    if !seen.is_file() {
        return Err(symlink(path));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let same = (metadata.dev(), metadata.ino()) == (seen.dev(), seen.ino());
    Ok(same.then_some((file, metadata)))
}

fn read_range(base: &Path, key: &str, range: Range<u64>) -> Result<Bytes> {
    let (file, metadata) = open(base, key)?;
    if range.start >= range.end {
        return Ok(Bytes::new());
    }
    if metadata.len() < range.end {
        return Err(super::common::too_short(key, &range, metadata.len()));
    }
    let length = usize::try_from(range.end - range.start)
        .map_err(|e| Error::new(ErrorKind::InvalidParameter, "the byte range is too long").source(e))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start).map_err(|e| failed("read", &base.join(key), e))?;
    Ok(Bytes::from(bytes))
}

/// A missing directory that the first put would make is empty; one whose parent is missing too is an error, for then
/// something is not mounted.
fn require_base(base: &Path) -> Result<()> {
    let exists = |path: &Path| fs::metadata(path).map(|m| m.is_dir()).unwrap_or(false);
    if exists(base) || base.parent().is_some_and(exists) {
        return Ok(());
    }
    Err(failed("open", base, io::Error::from(io::ErrorKind::NotFound)))
}

fn walk(base: &Path, directory: &str, prefix: &str, found: &mut Vec<ObjectMeta>) -> Result<()> {
    let path = base.join(directory);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", &path, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| failed("read", &path, e))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let key = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        visit(base, key, &entry, prefix, found)?;
    }
    Ok(())
}

/// Links and special files are none of ours, and a file that vanished meanwhile was not there.
fn visit(base: &Path, key: String, entry: &fs::DirEntry, prefix: &str, found: &mut Vec<ObjectMeta>) -> Result<()> {
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", &entry.path(), error)),
    };
    if metadata.is_dir() {
        if key.starts_with(prefix) || prefix.starts_with(&format!("{key}/")) {
            walk(base, &key, prefix, found)?;
        }
    } else if metadata.is_file() && key.starts_with(prefix) {
        found.push(meta(key, &metadata));
    }
    Ok(())
}

/// Makes the missing directories of `key` below `base`, each on disk in its parent; `base` itself only when its parent
/// exists, so that an unmounted file system is not filled in the wrong place.
fn make_parents(base: &Path, key: &str) -> Result<PathBuf> {
    let mut path = base.to_owned();
    if !fs::metadata(base).map(|m| m.is_dir()).unwrap_or(false) {
        make_directory(base)?;
    }
    let Some((directories, _)) = key.rsplit_once('/') else { return Ok(path) };
    for segment in directories.split('/') {
        path.push(segment);
        make_directory(&path)?;
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(failed("use", &path, symlink(&path))),
            Err(error) => return Err(failed("use", &path, error)),
        }
    }
    Ok(path)
}

fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("create", path, error)),
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| d.sync_all()).map_err(|e| failed("fsync", path, e))
}

/// A file being written next to where it will be; removed when dropped before it was published.
#[derive(Debug)]
struct TempFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    directory: PathBuf,
    key: String,
    published: bool,
}

impl TempFile {
    fn create(base: &Path, key: &str) -> Result<Self> {
        validate_key(key)?;
        let directory = make_parents(base, key)?;
        let path = directory.join(format!("{TEMP_PREFIX}{}", random_suffix()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|e| failed("create", &path, e))?;
        Ok(Self { file, path, target: base.join(key), directory, key: key.to_owned(), published: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| failed("write", &self.path, e))
    }

    fn publish(mut self, mode: PutMode) -> Result<ObjectMeta> {
        self.file.sync_all().map_err(|e| failed("fsync", &self.path, e))?;
        let metadata = self.file.metadata().map_err(|e| failed("stat", &self.path, e))?;
        self.refuse_link()?;
        match mode {
            PutMode::Overwrite => self.rename()?,
            PutMode::CreateOnly => self.link()?,
        }
        sync_directory(&self.directory)?;
        Ok(meta(self.key.clone(), &metadata))
    }

    /// A rename would replace the link, yet somebody put it there: stop rather than guess why.
    fn refuse_link(&self) -> Result<()> {
        match fs::symlink_metadata(&self.target) {
            Ok(metadata) if !metadata.is_file() => Err(failed("replace", &self.target, symlink(&self.target))),
            _ => Ok(()),
        }
    }

    fn rename(&mut self) -> Result<()> {
        fs::rename(&self.path, &self.target).map_err(|e| failed("create", &self.target, e))?;
        self.published = true;
        Ok(())
    }

    /// A hard link fails when the name exists, also when two try at once. Where a file system has none, a look before
    /// the rename must do.
    fn link(&mut self) -> Result<()> {
        match fs::hard_link(&self.path, &self.target) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
                match self.target.exists() {
                    true => Err(failed("create", &self.target, io::Error::from(io::ErrorKind::AlreadyExists))),
                    false => self.rename(),
                }
            }
            Err(error) => Err(failed("create", &self.target, error)),
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

struct LocalUpload {
    temp: Option<TempFile>,
    /// What was written is on its way to the disk, so that not all of it is left for the end, when somebody waits.
    flushing: Option<JoinHandle<Result<()>>>,
}

impl LocalUpload {
    fn take(&mut self) -> Result<TempFile> {
        self.temp.take().ok_or_else(|| Error::new(ErrorKind::InvalidState, "the upload has ended"))
    }

    /// Has the parts so far written to the disk meanwhile, unless some still are.
    async fn flush(&mut self, temp: &TempFile) -> Result<()> {
        if self.flushing.as_ref().is_some_and(|flushing| !flushing.is_finished()) {
            return Ok(());
        }
        self.flushed().await?;
        let path = temp.path.clone();
        let file = temp.file.try_clone().map_err(|e| failed("open", &path, e))?;
        let flush = move || file.sync_data().map_err(|e| failed("fsync", &path, e));
        self.flushing = Some(tokio::task::spawn_blocking(flush));
        Ok(())
    }

    /// Waits for that. The system tells an error only once, so this one has to be heard.
    async fn flushed(&mut self) -> Result<()> {
        match self.flushing.take() {
            Some(flushing) => flushing.await.map_err(task_failed)?,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        let mut temp = self.take()?;
        let temp = run_blocking(move || temp.write(&bytes).map(|()| temp)).await?;
        let flushing = self.flush(&temp).await;
        self.temp = Some(temp);
        flushing
    }

    async fn complete(&mut self) -> Result<ObjectMeta> {
        let temp = self.take()?;
        self.flushed().await?;
        run_blocking(move || temp.publish(PutMode::Overwrite)).await
    }

    async fn abort(&mut self) -> Result<()> {
        let temp = self.temp.take();
        run_blocking(move || {
            drop(temp);
            Ok(())
        })
        .await
    }
}
