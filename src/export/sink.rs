//! Objects of one version as the writer produces them, streamed to the storage.

use archive_core::codec::ObjectSink;
use archive_core::store::{BlockingStore, BlockingUpload};
use archive_core::{Error, ErrorKind, Result};

/// Uploads each object under the key for its ordinal. An upload that is not finished is aborted at the store.
pub struct StoreSink<'a> {
    store: &'a BlockingStore,
    key: &'a dyn Fn(u32) -> String,
    upload: Option<BlockingUpload>,
    keys: Vec<String>,
}

impl<'a> StoreSink<'a> {
    /// A sink into `store`.
    pub fn new(store: &'a BlockingStore, key: &'a dyn Fn(u32) -> String) -> Self {
        Self { store, key, upload: None, keys: Vec::new() }
    }

    /// The keys written, by ordinal.
    pub fn into_keys(self) -> Vec<String> {
        self.keys
    }
}

impl ObjectSink for StoreSink<'_> {
    fn begin(&mut self, ordinal: u32) -> Result<()> {
        failpoint!("object_begins");
        let key = (self.key)(ordinal);
        self.upload = Some(self.store.upload(&key)?);
        self.keys.push(key);
        Ok(())
    }

    fn write(&mut self, bytes: bytes::Bytes) -> Result<()> {
        match &mut self.upload {
            Some(upload) => upload.write(bytes),
            None => Err(Error::new(ErrorKind::Internal, "bytes were written before their object was begun")),
        }
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(upload) = self.upload.take() {
            failpoint!("object_written");
            upload.finish()?;
            failpoint!("object_put");
        }
        Ok(())
    }
}
