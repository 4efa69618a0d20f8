//! Bounds on what one request's body may become in memory.

/// Levels of lists and objects in one another. Values are written and dropped by recursion, which this keeps off the end of
/// the stack. It is below the 127 levels that clients made with `serde_json` read, since lists and watch events put
/// some around an object: one that a client could not read would stop its watch.
pub const MAX_DEPTH: usize = 100;

/// Values in one body. A value takes some 80 bytes in memory but as few as two in the text, so that a body of 3 MiB could
/// take 120 MiB; with this it takes 20 MiB beside its texts. The largest objects that clusters hold, EndpointSlices of
/// a thousand endpoints, have a tenth of it.
pub const MAX_VALUES: usize = 1 << 18;

/// Values that a body may still have.
#[derive(Debug)]
pub struct Values {
    left: usize,
}

/// A body has more values than [`MAX_VALUES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has more than {MAX_VALUES} values")]
pub struct TooManyValues;

impl Default for Values {
    fn default() -> Self {
        Self { left: MAX_VALUES }
    }
}

impl Values {
    /// Counts values.
    ///
    /// # Errors
    /// Where they are more than are left.
    pub fn take(&mut self, count: usize) -> Result<(), TooManyValues> {
        self.left = self.left.checked_sub(count).ok_or(TooManyValues)?;
        Ok(())
    }
}
