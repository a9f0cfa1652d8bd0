//! A look at the image file now and then. What is read is compared with the index; but of zeroes,
//! and of what nobody asks for again, nothing is read, and who joins later could not get it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::source::ImageSource;
use crate::error::Error;

/// Looks whether an image file is still as it was when it was opened.
#[derive(Debug)]
pub struct Watch {
    source: Arc<ImageSource>,
    next_at: Instant,
}

impl Watch {
    /// Looks for the first time at `now`.
    #[must_use]
    pub const fn new(source: Arc<ImageSource>, now: Instant) -> Self {
        Self { source, next_at: now }
    }

    /// Looks if it is time to: the file's length and the time of its last modification are to be
    /// the same. A block device tells of no change.
    ///
    /// # Errors
    /// [`Error::ImageTruncated`], [`Error::ImageChanged`].
    pub fn look(&mut self, now: Instant) -> Result<(), Error> {
        if now < self.next_at {
            return Ok(());
        }
        self.next_at = now + INTERVAL;
        if self.source.has_changed() {
            return Err(self.source.changed_at(self.source.bytes()));
        }
        Ok(())
    }
}

/// Nobody waits much longer for an image that is no more, and it costs a system call.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::image::testing::TestDir;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn a_file_that_was_cut_or_written_to_is_noticed_within_a_second() {
        let dir = TestDir::new("watch");
        let path = dir.file("image", &[7; 100]);
        let source = Arc::new(ImageSource::open(&path).unwrap());
        let file = File::options().write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        let begin = Instant::now();
        let mut watch = Watch::new(source, begin);
        watch.look(begin).unwrap();
        file.set_len(50).unwrap();
        watch.look(begin + INTERVAL / 2).unwrap();
        let error = watch.look(begin + INTERVAL).unwrap_err();
        assert!(matches!(error, Error::ImageTruncated { bytes_now: 50, .. }), "{error}");
        file.set_len(100).unwrap();
        file.set_modified(modified).unwrap();
        watch.look(begin + 2 * INTERVAL).unwrap();
        file.set_modified(modified + Duration::from_nanos(9)).unwrap();
        let error = watch.look(begin + 3 * INTERVAL).unwrap_err();
        assert!(matches!(error, Error::ImageChanged { offset: 100, .. }), "{error}");
    }
}
