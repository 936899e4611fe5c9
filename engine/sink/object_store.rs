//! Whole outputs as objects in buckets.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt};

use super::{OutputDelivery, OutputSink, OutputSinkError};

/// What of an output is in memory at a time. S3 wants at least 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// Parts of an object, at most: S3 takes no more.
const PARTS_MAX: u64 = 10_000;

/// Puts outputs into a bucket that speaks S3, larger ones in parts.
///
/// Credentials, endpoint, timeouts and retries are those of the crate [`object_store`], which a host finds as
/// `adjutant::object_store`. An upload that the end of its engine cuts off may leave parts in the bucket:
/// have its lifecycle remove incomplete uploads.
///
/// # A bucket of Tencent COS
///
/// ```no_run
/// use adjutant::object_store::aws::AmazonS3Builder;
/// use adjutant::{Engine, ObjectStoreSink};
///
/// # fn example() -> Result<(), adjutant::object_store::Error> {
/// let bucket = "https://logs-1250000000.cos.ap-guangzhou.myqcloud.com";
/// let store = AmazonS3Builder::from_env() // AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
///     .with_region("ap-guangzhou")
///     .with_bucket_name("logs-1250000000")
///     .with_endpoint(bucket)
///     .with_virtual_hosted_style_request(true)
///     .build()?;
/// let engine = Engine::builder().output_sink(bucket, ObjectStoreSink::new(store));
/// # let _ = engine;
/// # Ok(())
/// # }
/// ```
///
/// For Alibaba OSS the endpoint is `https://BUCKET.oss-REGION.aliyuncs.com` and the place `oss://BUCKET`.
#[derive(Debug, Clone)]
pub struct ObjectStoreSink {
    store: Arc<dyn ObjectStore>,
}

impl ObjectStoreSink {
    /// A sink that writes to `store`.
    pub fn new(store: impl ObjectStore) -> Self {
        Self { store: Arc::new(store) }
    }
}

impl OutputSink for ObjectStoreSink {
    async fn deliver(&self, output: OutputDelivery) -> Result<(), OutputSinkError> {
        let key = Path::parse(&output.key).map_err(Error::from)?;
        let part_bytes = PART_BYTES.max(output.bytes.div_ceil(PARTS_MAX));
        let (file, first) = read_part(File::open(&output.path)?, part_bytes).await?;
        if output.bytes <= part_bytes {
            self.store.put(&key, first.into()).await?;
            return Ok(());
        }
        let mut upload = self.store.put_multipart(&key).await?;
        let put = put_parts(&mut *upload, file, first, part_bytes).await;
        if put.is_err() {
            // Why it failed is known; what is left of it is the lifecycle's.
            let _ = upload.abort().await;
        }
        put
    }
}

async fn put_parts(
    upload: &mut dyn MultipartUpload,
    mut file: File,
    mut part: Vec<u8>,
    part_bytes: u64,
) -> Result<(), OutputSinkError> {
    while !part.is_empty() {
        upload.put_part(part.into()).await?;
        (file, part) = read_part(file, part_bytes).await?;
    }
    upload.complete().await?;
    Ok(())
}

/// Reads the next part; nothing at the end.
async fn read_part(mut file: File, bytes_max: u64) -> Result<(File, Vec<u8>), OutputSinkError> {
    let read = move || -> io::Result<_> {
        let mut part = Vec::new();
        (&mut file).take(bytes_max).read_to_end(&mut part)?;
        Ok((file, part))
    };
    let read = tokio::task::spawn_blocking(read).await;
    let read =
        read.map_err(|error| OutputSinkError::Failed(format!("reading did not end: {error}")))?;
    Ok(read?)
}

impl From<Error> for OutputSinkError {
    fn from(error: Error) -> Self {
        let info = error.to_string();
        match error {
            Error::NotFound { .. } => Self::NotFound(info),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Denied(info),
            _ => Self::Failed(info),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::id::ExecutionId;

    #[tokio::test]
    async fn outputs_of_every_length_come_whole() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("printed");
        let store = Arc::new(InMemory::new());
        let sink = ObjectStoreSink::new(Arc::clone(&store));
        for bytes in [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 3 * PART_BYTES - 1] {
            let printed: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            std::fs::write(&path, &printed).expect("written");
            let key = "logs/a b/7.log".to_owned();
            let invoke_id = "t-01a1fb2367aa7653922750444385f3f5".parse().expect("an id");
            let (execution_id, path) = (ExecutionId(7), path.clone());
            let output = OutputDelivery { invoke_id, execution_id, key, path, bytes };
            OutputSink::deliver(&sink, output).await.expect("delivered");
            let stored = store.get(&Path::from("logs/a b/7.log")).await.expect("it is there");
            assert!(stored.bytes().await.expect("readable") == printed, "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn keys_that_are_none_are_refused() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("printed");
        std::fs::write(&path, "text").expect("written");
        let sink = ObjectStoreSink::new(InMemory::new());
        for key in ["a/../7.log", "a//7.log", "./7.log", "a\n/7.log"] {
            let output = OutputDelivery {
                invoke_id: "t-01a1fb2367aa7653922750444385f3f5".parse().expect("an id"),
                execution_id: ExecutionId(7),
                key: key.to_owned(),
                path: path.clone(),
                bytes: 4,
            };
            OutputSink::deliver(&sink, output).await.expect_err(key);
        }
    }
}
