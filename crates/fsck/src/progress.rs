//! Where a check is: told to whoever wants to draw it.

use std::fmt;
use std::sync::Arc;

type Listener = Arc<dyn Fn(u8, u32, u32) + Send + Sync>;

/// Calls a listener with (pass, done, all). Threads call it at the same time and out of order.
#[derive(Clone, Default)]
pub struct Progress(Option<Listener>);

impl Progress {
    /// Reports to `listener`.
    pub fn new(listener: impl Fn(u8, u32, u32) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn step(&self, pass: u8, done: u32, all: u32) {
        if let Some(listener) = &self.0 {
            listener(pass, done, all);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}
